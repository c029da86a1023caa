"""The client of the inference server, vLLM's or the embedded one's, and what branching asks of a policy.

Imports the modules at the top of `streams` only.
"""
