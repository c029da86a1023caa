"""The private parts of Faust and aiokafka that Ratchet overrides, all of them here; `streams.kafka.worker` uses them.

Check each row when faust-streaming, mode-streaming or aiokafka get another version. The tests are those of
`tests/streams/kafka/test_worker.py` or, where it says so, of `test_reading_on.py` beside it.

| override | the defect that it closes | the test that fails without it |
|---|---|---|
| `BundlingConsumer.getmany` | Faust spends more time on one message than Ratchet on one record, so a fetch becomes \
one message for each partition | `test_what_one_fetch_brings_is_handled_at_once` |
| `BundlingConsumer._following` | a rebalance discards what was fetched, and reading goes on behind it | \
`test_discarded_records_are_fetched_again` in `test_reading_on.py` |
| `BundlingConsumer._new_offset` | Faust reckons with single offsets: it commits a few of those that a message stands \
for, and past a message that is not acknowledged (faust-streaming issue 606) | \
`test_handled_records_are_not_read_again`, `test_nothing_is_committed_past_what_is_not_acknowledged` in \
`test_reading_on.py` |
| `BundlingConsumer.perform_seek` | an assignment begins at the group's commit, which may be older or newer than what \
the store has | `test_stored_positions_override_the_groups_committed_offsets` |
| `BundlingConsumer._commit` | none: it has two crash points | `tests/crash/test_every_crash_point.py` |
| `take_unacknowledged` | a stream whose agent has failed acknowledges what still waits, in spite of `noack_take` | \
`test_what_waits_behind_a_failure_is_not_acknowledged` |
| `consumer_threads_ended` | a consumer that could not start leaves its thread, which reports to a closed event loop | \
`test_a_thread_that_could_not_start_is_waited_for` |
| `accept_any_header_name` | aiokafka never gets past a header name that is not UTF-8 | \
`test_a_header_name_that_is_not_utf8_does_not_stop_its_partition` |

One more defect needs no override: a consumer may stay silent after an outage of the cluster (issues 175, 523 and 629).
`streams.kafka.stall_watchdog` notices it; `test_a_worker_that_stalls_with_records_waiting_ends`.
"""

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import faust
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.legacy_records import LegacyRecordBatch
from aiokafka.record.memory_records import _MemoryRecordsPy
from faust.transport.drivers.aiokafka import Consumer, Transport
from faust.types import TP
from faust.types.transports import ConsumerT
from faust.types.tuples import ConsumerMessage
from mode.threads import WorkerThread

from streams.kafka.records import Received
from streams.kafka.settings import KafkaSettings
from streams.kafka.stall_watchdog import Unread, Watchdog, unread_records
from streams.runtime.crash_points import CrashPoint, reach

Positions = Callable[[], Awaitable[Mapping[tuple[str, int], int]]]

_FIRST_WITH_HEADERS = 2


class BundlingTransport(Transport):
    """Faust's transport, with a `BundlingConsumer` and the watchdog over it. `topics` are those that are consumed."""

    def __init__(self, url: Any, app: faust.App, kafka: KafkaSettings, positions: Positions | None) -> None:
        super().__init__(url, app)
        self._kafka = kafka
        self._group = app.conf.id
        self._positions = positions
        self.topics: set[str] = set()
        self.watchdog = Watchdog(kafka.stall_timeout_s, self._unread)

    async def _unread(self) -> Unread:
        positions = None if self._positions is None else await self._positions()
        return await asyncio.to_thread(unread_records, self._kafka, self._group, self.topics, positions)

    def create_consumer(self, callback: Any, **kwargs: Any) -> ConsumerT:
        consumer = BundlingConsumer(self, callback=callback, **kwargs)
        consumer.positions = self._positions
        return consumer


class BundlingConsumer(Consumer):
    """Makes one Faust message of what a fetch brought from a partition.

    The message has the offset of its last record, so that acknowledging it commits all of them, and none before.

    With `positions`, each assignment begins where the store is. Only what follows what was handed on before is handed
    on, so what Faust throws away while a group rebalances is fetched again.
    """

    positions: Positions | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._handed: defaultdict[TP, deque[int]] = defaultdict(deque)
        # Per partition, what comes next. None has an entry from its assignment to the end of `perform_seek`.
        self._next: dict[TP, int] = {}
        self._fetched_again: dict[TP, int] = {}

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:  # noqa: ASYNC109 - the signature is Faust's
        fetched, _ = await self._wait_next_records(timeout)
        for partition, records in (fetched or {}).items():
            if self.should_stop or not self.flow_active:
                return
            following = await self._following(partition, records)
            if following:
                self._handed[partition].append(following[-1].offset)
                yield partition, self._bundle(partition, following)

    async def _following(self, partition: TP, records: Sequence[Any]) -> Sequence[Any]:
        """Those of `records` that follow what was read of the partition; none when they do not."""
        expected = self._next.get(partition)
        if expected is None or not records or records[-1].offset < expected:
            return ()
        if records[0].offset < expected:
            records = [record for record in records if record.offset >= expected]
        if records[0].offset > expected and self._fetched_again.get(partition) != expected:
            # Only a log that lacks them leaves them out a second time.
            self._fetched_again[partition] = expected
            await self.seek_wait({partition: expected})
            return ()
        self._next[partition] = records[-1].offset + 1
        return records

    def _bundle(self, partition: TP, records: Sequence[Any]) -> ConsumerMessage:
        last = records[-1]
        received = [
            Received(partition.topic, partition.partition, r.offset, r.key, r.value, _headers(r.headers))
            for r in records
        ]
        return ConsumerMessage(
            *(partition.topic, partition.partition, last.offset, last.timestamp / 1000, last.timestamp_type),
            headers=None,
            key=None,
            value=received,  # type: ignore[arg-type] # the raw serializer hands anything on
            checksum=None,
            serialized_key_size=0,
            serialized_value_size=sum(map(_value_size, records)),
            tp=partition,
            generation_id=self.app.consumer_generation_id,
        )

    def _new_offset(self, tp: TP) -> int | None:
        """The offset to commit: the one after the last bundle that is acknowledged and so are all before it."""
        handed, acked = self._handed[tp], self._acked_index[tp]
        following = None
        while handed and handed[0] in acked:
            last = handed.popleft()
            acked.discard(last)
            following = last + 1
        self._acked[tp] = sorted(acked)
        return following

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        reach(CrashPoint.GROUP_COMMIT_BEFORE)
        committed: bool = await super()._commit(offsets)
        reach(CrashPoint.GROUP_COMMIT_AFTER)
        return committed

    async def perform_seek(self) -> None:
        self._handed.clear()
        self._next.clear()
        self._fetched_again.clear()
        await super().perform_seek()
        positions = {} if self.positions is None else await self.positions()
        wanted: dict[TP, int] = {}
        for partition in self.assignment():
            offset = positions.get((partition.topic, partition.partition))
            if offset is not None:
                wanted[partition] = offset
        if wanted:
            await self.seek_wait(wanted)
        self._committed_offset.update(wanted)
        self._next = {partition: self._committed_offset[partition] or 0 for partition in self.assignment()}


def take_unacknowledged(stream: Any, bundles: int, within_s: float) -> AsyncIterator[list[Any]]:
    """The events of `stream`, up to `bundles` at once; acknowledged is only what the caller acknowledges."""
    stream.enable_acks = False
    events: AsyncIterator[list[Any]] = stream.noack_take(bundles, within=within_s)
    return events


async def consumer_threads_ended(timeout_s: float) -> None:
    """Wait for the consumer threads that report to this event loop."""
    loop = asyncio.get_running_loop()
    for thread in threading.enumerate():
        if isinstance(thread, WorkerThread) and thread.service.parent_loop is loop:
            await asyncio.to_thread(thread.join, timeout_s)


def accept_any_header_name() -> None:
    """From now on consumers read an undecodable header name with U+FFFD in the place of what is wrong with it."""
    fetcher.MemoryRecords = _Fetched


class _Fetched(_MemoryRecordsPy):  # type: ignore[misc] # final for type checkers, and the place to step in
    """The records of one partition, fetch by fetch."""

    def next_batch(self) -> Any:
        content = self._next_slice
        if content is None:
            return None
        self._cache_next()
        magic = content[self.MAGIC_OFFSET]
        return _Batch(content) if magic >= _FIRST_WITH_HEADERS else LegacyRecordBatch(content, magic)


class _Batch:
    """aiokafka's compiled batch, or its plain one when a name cannot be decoded."""

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._compiled = DefaultRecordBatch(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiled, name)

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(list(self._compiled))
        except UnicodeDecodeError:
            return iter(_LenientBatch(self._content))


class _LenientBatch(_DefaultRecordBatchPy):  # type: ignore[misc] # as above
    _buffer: bytearray

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer = _LenientBytes(self._buffer)


class _LenientBytes(bytearray):
    """Bytes whose parts can always be decoded."""

    def __getitem__(self, place: Any) -> Any:
        part = super().__getitem__(place)
        return _LenientBytes(part) if isinstance(place, slice) else part

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        return super().decode(encoding, "replace")


def _headers(found: Sequence[tuple[str, bytes | None]]) -> tuple[tuple[str, bytes], ...]:
    # A header may have no value.
    return tuple((name, value or b"") for name, value in found) if found else ()


def _value_size(record: Any) -> int:
    return record.serialized_value_size or 0
