"""Positions in each partition that was read, and in the outbox: the watermarks that make at-least-once exactly once."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

import structlog

from streams.errors import StoreError
from streams.kafka.records import Received
from streams.store.rows import Batch

log = structlog.get_logger()

Partition: TypeAlias = tuple[str, int]

OUTBOX = ("outbox", 0)
# Where several processes write: the sequence that the next row gets.
SEQUENCE = ("sequence", 0)


class Positions:
    """Per topic and partition the offset to read next and, under `OUTBOX`, the sequence to publish next.

    `stored` is what the database has. It is replaced and never changed, so that other threads may read it.
    """

    def __init__(self, stored: Mapping[Partition, int]) -> None:
        self.stored = stored
        self._next = dict(stored)
        self._read: set[Partition] = set()
        self._begun: set[Partition] = set()

    def passes(self, received: Received, batch: Batch) -> bool:
        """Return whether the record is new. Offsets missing before it become a row of `gaps`.

        Raises `StoreError` when they are missing from the middle of what is being read, unless the record says that
        the log lacks them. Only the log itself can skip offsets at the start, since reading began at the watermark;
        later the consumer may have.
        """
        partition = (received.topic, received.partition)
        expected = self._next.get(partition, 0)
        if received.offset < expected:
            return False
        follows = received.offset if received.follows is None else received.follows
        if follows > expected or received.lacking:
            where = f"{received.topic}/{received.partition}"
            if not received.lacking and (partition in self._read or partition in self._begun):
                raise StoreError(
                    f"{where} went from offset {expected} to {received.offset}; read again from {expected}"
                )
            log.error("the log lacks records", partition=where, expected=expected, found=received.offset)
            batch.add(
                "gaps",
                topic=received.topic,
                partition=received.partition,
                expected=expected,
                found=received.offset,
            )
        self._next[partition] = received.offset + 1
        self._begun.add(partition)
        return True

    def reread(self, stored: Mapping[Partition, int]) -> None:
        """Take over what the database has by now. Call it before anything of a transaction."""
        self.stored = stored
        self._next = dict(stored)

    def restart(self, partitions: Iterable[Partition]) -> None:
        """Read partitions from their beginning."""
        self._next.update(dict.fromkeys(partitions, 0))

    def published(self, up_to: int) -> None:
        """Publish what is after the message of sequence `up_to`."""
        self._next[OUTBOX] = up_to + 1

    def changed(self) -> Iterator[tuple[Partition, int]]:
        """The positions that differ from the stored ones."""
        return ((partition, next_) for partition, next_ in self._next.items() if self.stored.get(partition) != next_)

    def commit(self) -> None:
        self.stored = dict(self._next)
        self._read |= self._begun
        self._begun.clear()

    def rollback(self) -> None:
        self._next = dict(self.stored)
        self._begun.clear()
