"""Waiting until the store has what the log held when the waiting began. Backups call it."""

import asyncio
import time

from streams.errors import StoreError
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import end_offsets
from streams.store.client import StoreClient

_POLL_S = 0.2


async def has_arrived(kafka: KafkaSettings, store: StoreClient, patience_s: float) -> None:
    """Return when every record that the cluster has acknowledged by now is stored.

    Raises `BrokerError` where the cluster does not answer, `StoreError` after `patience_s` seconds.
    """
    topics = (kafka.events_topic, kafka.transitions_topic)
    ends = {topic: await asyncio.to_thread(end_offsets, kafka.bootstrap, topic, kafka.security) for topic in topics}
    deadline = time.monotonic() + patience_s
    while True:
        positions = (await store.status()).positions
        left = sum(
            max(0, end - positions.get(topic, {}).get(partition, 0))
            for topic, partitions in ends.items()
            for partition, end in partitions.items()
        )
        if not left:
            return
        if time.monotonic() > deadline:
            raise StoreError(
                f"{left} records of the log are not stored after {patience_s:g} s: look at the record role's log and "
                "lag, and try again, or take what is stored as it is (--as-is)"
            )
        await asyncio.sleep(_POLL_S)
