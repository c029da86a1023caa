"""Calls of a model as the gateway captured them, in every face of the API, and the feedback on them.

It may import messages, events, ids and errors, and nothing that knows Kafka, a store or a sandbox.
"""
