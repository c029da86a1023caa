"""Notices that a worker has stopped reading although there is something to read; `streams.kafka.worker` runs it.

After an outage of the cluster, Faust's consumer may stay silent permanently (faust-streaming issues 175, 523 and 629).
The remedy that always works is a new process, and what was not acknowledged waits for it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager

import structlog
from kafka import TopicPartition

from ratchet_client.errors import BrokerError
from streams.kafka.clients import consumer, poll
from streams.kafka.settings import KafkaSettings

log = structlog.get_logger()

Unread = Mapping[tuple[str, int], int]

_PROBE_MS = 2000
_BOOTSTRAP_MS = 5000


class Watchdog:
    """Bites when, for `kafka.stall_timeout_s`, records waited and this process handled none of them.

    `unread` is asked for the partitions where a record waits, each with that record's offset.
    """

    def __init__(self, timeout_s: float, unread: Callable[[], Awaitable[Unread]]) -> None:
        self._timeout_s = timeout_s
        self._unread = unread
        self._handling = 0
        self._moved = time.monotonic()

    @contextmanager
    def handling(self) -> Iterator[None]:
        """Says that records are being handled, which may take as long as it takes."""
        self._handling += 1
        try:
            yield
        finally:
            self._handling -= 1
            self._moved = time.monotonic()

    async def watch(self) -> None:
        """Return never, or raise `BrokerError`: the process must then end and be started again."""
        waiting: Unread = {}
        while True:
            await asyncio.sleep(self._timeout_s / 4)
            if self._handling or time.monotonic() - self._moved < self._timeout_s / 2:
                waiting = {}
                continue
            try:
                found = await self._unread()
            except BrokerError as error:
                # Without a cluster there is nothing to read, and the client goes on asking for it. A batch that cannot
                # be read here is no reason to end either.
                log.warning("it cannot be seen if records wait", error=str(error))
                waiting, self._moved = {}, time.monotonic()
                continue
            still = {partition: offset for partition, offset in found.items() if waiting.get(partition) == offset}
            if still and time.monotonic() - self._moved > self._timeout_s:
                topic, partition = next(iter(still))
                raise BrokerError(
                    f"nothing was read for {self._timeout_s:.0f} s though {topic}/{partition} and "
                    f"{len(still) - 1} other partitions have records; start it again"
                )
            waiting = found


def unread_records(kafka: KafkaSettings, group: str, topics: set[str], positions: Unread | None) -> Unread:
    """The partitions that hold a record at their next offset, which is that of `positions` or else the group's.

    It looks for the record itself, since an offset below the end may be a transaction's marker. Raises `BrokerError`.
    """
    with consumer("watchdog", kafka.bootstrap, kafka.security, group, bootstrap_timeout_ms=_BOOTSTRAP_MS) as client:
        partitions = [
            TopicPartition(topic, number) for topic in topics for number in client.partitions_for_topic(topic) or ()
        ]
        client.assign(partitions)
        following: dict[tuple[str, int], int] = {}
        for partition in partitions:
            key = (partition.topic, partition.partition)
            known = client.committed(partition) if positions is None else positions.get(key)
            following[key] = known or 0
            client.seek(partition, following[key])
        found: dict[tuple[str, int], int] = {}
        deadline = time.monotonic() + _PROBE_MS / 1000
        while time.monotonic() < deadline:
            for partition, records in poll(client, 200, len(partitions)).items():
                if records:
                    found[partition.topic, partition.partition] = following[partition.topic, partition.partition]
                    client.pause(partition)
        return found
