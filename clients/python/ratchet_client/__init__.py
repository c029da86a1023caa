"""The client that agents install: it publishes what they do, labels their calls at the gateway, and gives feedback.

Needs pydantic and kafka-python alone, and imports nothing else of Ratchet. `producer`, `events`, `headers`, `receipts`
and `feedback` are its interface; the README shows their use.
"""
