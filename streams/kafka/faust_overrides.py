"""The private parts of Faust and aiokafka that Ratchet overrides, all here and in `streams.kafka.batches`.

Check each row when faust-streaming, mode-streaming or aiokafka get another version. The tests are those of
`tests/streams/kafka/test_worker.py` or, where it says so, of `test_reading_on.py` beside it.

| override | the defect that it closes | the test that fails without it |
|---|---|---|
| `BundlingConsumer.getmany` | Faust spends more time on one message than Ratchet on one record, so a fetch becomes \
one message for each partition | `test_what_one_fetch_brings_is_handled_at_once` |
| `BundlingConsumer._wait_next_records` | while all that waits is of partitions whose buffers are full, Faust sleeps a \
second, and while others are empty it waits a second for them, however soon a buffer has room | \
`test_reading_goes_on_as_soon_as_a_full_buffer_has_room`, \
`test_a_full_buffer_is_not_forgotten_over_an_empty_partition` |
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
| `streams.kafka.batches` | aiokafka never gets past a header name that is not UTF-8, nor past a batch that cannot be \
decompressed | `test_a_header_name_that_is_not_utf8_does_not_stop_its_partition`, `test_batches.py` beside it |

One more defect needs no override: a consumer may stay silent after an outage of the cluster (issues 175, 523 and 629).
`streams.kafka.stall_watchdog` notices it; `test_a_worker_that_stalls_with_records_waiting_ends`.
"""

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import faust
from faust.transport.drivers.aiokafka import Consumer, Transport
from faust.types import TP
from faust.types.transports import ConsumerT
from faust.types.tuples import ConsumerMessage
from mode.threads import WorkerThread

from ratchet_client.crash_points import CrashPoint, reach
from streams.kafka.batches import StandIn
from streams.kafka.records import Received
from streams.kafka.settings import KafkaSettings
from streams.kafka.stall_watchdog import Unread, Watchdog, unread_records

# While a buffer is full. It is emptied in the time that a few records take.
_LOOK_AGAIN_S = 0.01

Positions = Callable[[], Awaitable[Mapping[tuple[str, int], int]]]


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
        # Per partition, where the offsets begin that go with the next record, and whether the log lacks any of them.
        self._pending: dict[TP, tuple[int, bool]] = {}

    async def _wait_next_records(self, timeout: float) -> tuple[Any, Any]:  # noqa: ASYNC109 - the signature is Faust's
        if not self._buffered_partitions:
            return await super()._wait_next_records(timeout)
        while self._buffered_partitions and not self._get_active_partitions() and self.flow_active:
            if self.should_stop:
                return {}, None
            await asyncio.sleep(_LOOK_AGAIN_S)
        return await super()._wait_next_records(_LOOK_AGAIN_S)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:  # noqa: ASYNC109 - the signature is Faust's
        fetched, _ = await self._wait_next_records(timeout)
        for partition, records in (fetched or {}).items():
            if self.should_stop or not self.flow_active:
                return
            following = await self._following(partition, records)
            if following:
                self._handed[partition].append(following[-1].offset)
                yield partition, self._bundle(partition, following, records[-1])

    async def _following(self, partition: TP, records: Sequence[Any]) -> list[Received]:
        """Those of `records` that follow what was read of the partition; none when they do not."""
        expected = self._next.get(partition)
        if expected is None or not records or records[-1].offset < expected:
            return []
        if _is_row(records, expected) and partition not in self._pending:
            self._next[partition] = expected + len(records)
            return [_received(partition, record) for record in records]
        found: list[Received] = []
        follows, lacking = self._pending.pop(partition, (expected, False))
        for record in records:
            if record.offset < expected:
                continue
            if _first(record) > expected:
                if self._fetched_again.get(partition) != expected:
                    # Only a log that lacks them leaves them out a second time.
                    self._fetched_again[partition] = expected
                    await self.seek_wait({partition: expected})
                    break
                lacking = True
            expected = record.offset + 1
            if isinstance(record, StandIn) and record.unreadable is None:
                continue
            found.append(_received(partition, record, follows, lacking))
            follows, lacking = expected, False
        self._next[partition] = expected
        if follows != expected:
            self._pending[partition] = (follows, lacking)
        return found

    def _bundle(self, partition: TP, received: list[Received], last: Any) -> ConsumerMessage:
        return ConsumerMessage(
            *(partition.topic, partition.partition, received[-1].offset, last.timestamp / 1000, last.timestamp_type),
            headers=None,
            key=None,
            value=received,  # type: ignore[arg-type] # the raw serializer hands anything on
            checksum=None,
            serialized_key_size=0,
            serialized_value_size=sum(len(each.value or b"") for each in received),
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
        self._pending.clear()
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


def _is_row(records: Sequence[Any], expected: int) -> bool:
    """Return whether they are records, all of them, and the next ones."""
    first, last = records[0].offset, records[-1].offset
    return first == expected and last - first + 1 == len(records) and StandIn not in map(type, records)


def _first(record: Any) -> int:
    return record.first if isinstance(record, StandIn) else int(record.offset)


def _received(partition: TP, record: Any, follows: int | None = None, lacking: bool = False) -> Received:
    return Received(
        *(partition.topic, partition.partition, record.offset, record.key, record.value, _headers(record.headers)),
        unreadable=record.unreadable if isinstance(record, StandIn) else None,
        follows=None if follows == record.offset else follows,
        lacking=lacking,
    )


def _headers(found: Sequence[tuple[str, bytes | None]]) -> tuple[tuple[str, bytes], ...]:
    # A header may have no value.
    return tuple((name, value or b"") for name, value in found) if found else ()
