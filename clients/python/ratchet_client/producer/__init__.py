"""The library that agents import: publishes what they do to `ratchet.events`, and never gets in their way.

It imports pydantic and kafka-python, and nothing heavier. `docs/producer.md` shows its use.
"""

from ratchet_client.producer.producer import Episode, Producer, ProducerStats

__all__ = ["Episode", "Producer", "ProducerStats"]
