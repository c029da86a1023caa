"""The store's status and its lag behind the log, polled and kept for status and metrics."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import structlog

from ratchet_client.errors import BrokerError
from streams.errors import StoreError
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import end_offsets
from streams.runtime.threads import in_daemon_thread
from streams.store.client import StoreClient
from streams.store.status import StoreStatus

log = structlog.get_logger()

# A store in a lake takes about a second for its status.
PATIENCE_S = 3.0


@dataclass(slots=True)
class StoreWatch:
    """`status` is the last that was seen, `up` whether the store answered when last asked.

    `at` is when the status was seen. `lag` holds, per topic and partition, the records of the log that are not stored
    yet.
    """

    client: StoreClient
    kafka: KafkaSettings
    status: StoreStatus | None = None
    at: datetime | None = None
    up: bool = False
    lag: dict[tuple[str, int], int] = field(default_factory=dict)
    _asked: asyncio.Task[StoreError | None] | None = None

    async def answers(self) -> bool:
        """Ask the store for its status, unless it still owes an answer; False where it gives none within `PATIENCE_S`.

        An answer that comes later is kept in `status` all the same.
        """
        asked = self._ask()
        await asyncio.wait({asked}, timeout=PATIENCE_S)
        return asked.done() and asked.result() is None

    def _ask(self) -> "asyncio.Task[StoreError | None]":
        # What hangs must not be asked ever more.
        if self._asked is None or self._asked.done():
            self._asked = asyncio.create_task(self._see())
        return self._asked

    async def _see(self) -> StoreError | None:
        try:
            self.status, self.at = await self.client.status(), datetime.now(UTC)
        except StoreError as error:
            return error
        return None

    async def refresh(self) -> None:
        """Ask the store and the broker. That one of them is away is what this is to notice, so it does not raise."""
        try:
            # The store first: if it is away nothing can be said, and the broker's client waits much longer to say so.
            if (error := await self._ask()) is not None:
                raise error
            status = self.status
            assert status is not None
            ends = {
                topic: await in_daemon_thread(partial(end_offsets, self.kafka.bootstrap, topic, self.kafka.security))
                for topic in self._topics
            }
        except (StoreError, BrokerError) as error:
            if self.up:
                log.warning("the store or the broker is away", error=str(error))
            self.up = False
            return
        self.up = True
        self.lag = {
            (topic, partition): max(0, end - status.positions.get(topic, {}).get(partition, 0))
            for topic, partitions in ends.items()
            for partition, end in partitions.items()
        }

    @property
    def _topics(self) -> tuple[str, str]:
        return (self.kafka.events_topic, self.kafka.transitions_topic)
