"""The store's status and its lag behind the log, polled and kept for status and metrics."""

import asyncio
from dataclasses import dataclass, field

import structlog

from streams.errors import BrokerError, StoreError
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import end_offsets
from streams.store.client import StoreClient
from streams.store.status import StoreStatus

log = structlog.get_logger()


@dataclass(slots=True)
class StoreWatch:
    """`status` is the last that was seen, `up` whether the store answered when last asked.

    `lag` holds, per topic and partition, the records of the log that are not stored yet.
    """

    client: StoreClient
    kafka: KafkaSettings
    status: StoreStatus | None = None
    up: bool = False
    lag: dict[tuple[str, int], int] = field(default_factory=dict)

    async def refresh(self) -> None:
        """Ask the store and the broker. That one of them is away is what this is to notice, so it does not raise."""
        try:
            # The store first: if it is away nothing can be said, and the broker's client waits much longer to say so.
            status = await self.client.status()
            ends = {
                topic: await asyncio.to_thread(end_offsets, self.kafka.bootstrap, topic, self.kafka.security)
                for topic in self._topics
            }
        except (StoreError, BrokerError) as error:
            if self.up:
                log.warning("the store or the broker is away", error=str(error))
            self.up = False
            return
        self.up, self.status = True, status
        self.lag = {
            (topic, partition): max(0, end - status.positions.get(topic, {}).get(partition, 0))
            for topic, partitions in ends.items()
            for partition, end in partitions.items()
        }

    @property
    def _topics(self) -> tuple[str, str]:
        return (self.kafka.events_topic, self.kafka.transitions_topic)
