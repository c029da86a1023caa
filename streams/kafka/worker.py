"""The one way to consume the log: a Faust app that acknowledges an event only after its work is durable.

The record role and the branch role are built on it. Faust's defaults acknowledge first and lose what fails; every
setting here closes one of those holes.
"""

import asyncio
import tempfile
import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import faust
from aiokafka.errors import KafkaError
from faust.auth import SASLCredentials, SSLCredentials
from faust.contrib.asgi import faust_app_running
from faust.transport.drivers.aiokafka import Consumer, Transport
from faust.types import TP
from faust.types.transports import ConsumerT
from faust.types.tuples import ConsumerMessage
from mode import CrashingSupervisor
from mode.threads import WorkerThread

from streams.errors import BrokerError, RatchetError
from streams.kafka.aiokafka_headers import accept_any_header_name
from streams.kafka.records import Outgoing, Received
from streams.kafka.security import tls_context
from streams.kafka.settings import KafkaSecurity, KafkaSettings
from streams.kafka.stall_watchdog import Unread, Watchdog, unread_records
from streams.runtime.crash_points import CrashPoint, reach

Handle = Callable[[list[Received]], Awaitable[None]]
Positions = Callable[[], Awaitable[Mapping[tuple[str, int], int]]]

STOP_TIMEOUT_S = 20.0
METADATA_AGE_S = 5.0
# Fetched and not yet handled, per topic. More would be memory and not speed: one is being handled, the next are ready.
WAITING_BUNDLES = 8
PRODUCER_MAX_REQUEST_BYTES = 16 * 2**20


def build_app(role: str, kafka: KafkaSettings, *, bundle: int, positions: Positions | None = None) -> faust.App:
    """A Faust app whose consumer group is the role's, and which fetches at most `bundle` records at a time.

    `positions` gives, per (topic, partition), the next offset to read; it is asked at each assignment. Where it has an
    entry, that is read next, whatever the group committed. Without one the committed offset counts, or the beginning.
    """
    servers = kafka.bootstrap.removeprefix("kafka://")
    app = faust.App(
        f"{kafka.group_prefix}-{role}",
        broker=[f"kafka://{server.strip()}" for server in servers.split(",")],
        broker_credentials=_credentials(kafka.security),
        value_serializer="raw",
        key_serializer="raw",
        store="memory://",
        # Faust makes this folder, and without tables keeps nothing in it.
        datadir=Path(tempfile.gettempdir()) / "ratchet-faust",
        agent_supervisor=CrashingSupervisor,
        # With the default, stopping waits for ever for events that were taken but never acknowledged.
        stream_wait_empty=False,
        stream_buffer_maxsize=WAITING_BUNDLES,
        broker_max_poll_records=bundle,
        # A cluster that has just started may not know its topics yet, and whoever joins then is assigned nothing until
        # it asks again.
        consumer_metadata_max_age_ms=int(METADATA_AGE_S * 1000),
        broker_session_timeout=kafka.session_timeout_s,
        broker_heartbeat_interval=kafka.session_timeout_s / 4,
        producer_max_request_size=PRODUCER_MAX_REQUEST_BYTES,
        topic_disable_leader=True,
        web_enabled=False,
        web_tables_enabled=False,
        web_router_enabled=False,
    )
    accept_any_header_name()
    app.transport = _BundlingTransport(app.conf.broker_consumer, app, kafka, positions)
    return app


def consume(app: faust.App, topic: str, handle: Handle, *, bundles: int = 1, within_s: float = 0.0) -> None:
    """Have `app` pass the records of `topic` to `handle`, up to `bundles` fetches at once, waiting `within_s` for them.

    `handle` returns only when all it was given is durable; only then are they acknowledged, in order. When it raises,
    nothing of the batch is acknowledged and the app crashes: the process must end and be started again.
    """

    transport = cast(_BundlingTransport, app.transport)
    transport.topics.add(topic)

    async def agent(stream: Any) -> None:
        # `noack_take` restores what it found when it ends, and a crashed stream would acknowledge what it still holds.
        stream.enable_acks = False
        async for events in stream.noack_take(bundles, within=within_s):
            with transport.watchdog.handling():
                await handle([received for event in events for received in event.value])
                reach(CrashPoint.ACK_BEFORE)
                for event in events:
                    await stream.ack(event)
                reach(CrashPoint.ACK_AFTER)

    app.agent(app.topic(topic, value_serializer="raw"), name=f"{app.conf.id}-{topic}", concurrency=1)(agent)


async def publish(app: faust.App, messages: Sequence[Outgoing]) -> None:
    """Publish in order and return when the cluster has acknowledged every message.

    Raises `BrokerError`; some of the messages may then have been published.
    """
    producer = await app.maybe_start_producer()
    try:
        pending = [
            await producer.send(
                message.topic,
                key=message.key,
                value=message.value,
                partition=None,
                timestamp=None,
                headers=list(message.headers),
            )
            for message in messages
        ]
        await asyncio.gather(*pending)
    except KafkaError as error:
        raise BrokerError(f"could not publish {len(messages)} messages: {error!r}; is the cluster healthy?") from error


async def run(app: faust.App, stop: asyncio.Event) -> None:
    """Run `app` on this event loop until `stop` is set.

    Raises what a handler raised if that is a `RatchetError`, and `BrokerError` for anything else that ended the app,
    also when it stands still.
    """
    try:
        async with faust_app_running(app, stop_timeout=STOP_TIMEOUT_S):
            await _until_stopped_or_crashed(app, stop)
    except KafkaError as error:
        raise BrokerError(f"{app.conf.id} lost the Kafka cluster at {app.conf.broker}: {error!r}") from error
    except TimeoutError as error:
        raise BrokerError(f"{app.conf.id} did not stop within {STOP_TIMEOUT_S:.0f} s") from error
    finally:
        await _threads_ended()
    if app.crashed:
        if isinstance(app.crash_reason, RatchetError):
            raise app.crash_reason
        raise BrokerError(f"{app.conf.id} crashed: {app.crash_reason!r}; start it again") from app.crash_reason


def _credentials(security: KafkaSecurity) -> SASLCredentials | SSLCredentials | None:
    context = tls_context(security) if security.encrypted else None
    if security.authenticated:
        return SASLCredentials(
            username=security.username,
            password=security.password.get_secret_value(),
            mechanism=security.mechanism,
            ssl_context=context,
        )
    return SSLCredentials(context) if context is not None else None


async def _until_stopped_or_crashed(app: faust.App, stop: asyncio.Event) -> None:
    watchdog = cast(_BundlingTransport, app.transport).watchdog
    work = (stop.wait(), app.wait_until_stopped(), watchdog.watch())
    waits = [asyncio.ensure_future(each) for each in work]
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in done:
            wait.result()
    finally:
        for wait in waits:
            wait.cancel()
            with suppress(asyncio.CancelledError, BrokerError):
                await wait


async def _threads_ended() -> None:
    """Wait for Faust's consumer threads: they report to this loop, and Faust leaves them when it could not start."""
    loop = asyncio.get_running_loop()
    for thread in threading.enumerate():
        if isinstance(thread, WorkerThread) and thread.service.parent_loop is loop:
            await asyncio.to_thread(thread.join, STOP_TIMEOUT_S)


class _BundlingConsumer(Consumer):
    """Makes one Faust message of what a fetch brought from a partition.

    Faust spends more on a message than all the rest of Ratchet on a record. The message has the offset of its last
    record, so that acknowledging it commits all of them, and none before.

    With `positions`, each assignment begins where the store is: the group's commits may be older or newer.

    Faust throws away what was on its way while a group rebalanced, and goes on behind it. Here nothing is handed on but
    what comes next, so what was thrown away is fetched again.
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

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Faust takes what lies between two messages for acknowledged; here that is the records of the second one."""

    def _new_offset(self, tp: TP) -> int | None:
        """What to commit: the offset after the last bundle that is acknowledged and so are all before it."""
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
        for partition, offset in wanted.items():
            # Faust takes 0 for "nothing committed yet", which is what None says.
            self._committed_offset[partition] = offset or None
        self._next = {partition: self._committed_offset[partition] or 0 for partition in self.assignment()}


def _headers(found: Sequence[tuple[str, bytes | None]]) -> tuple[tuple[str, bytes], ...]:
    # A header may have no value.
    return tuple((name, value or b"") for name, value in found) if found else ()


def _value_size(record: Any) -> int:
    return record.serialized_value_size or 0


class _BundlingTransport(Transport):
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
        consumer = _BundlingConsumer(self, callback=callback, **kwargs)
        consumer.positions = self._positions
        return consumer
