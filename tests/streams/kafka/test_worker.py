"""The one way to consume: what was not handled is neither acknowledged nor lost."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import cast

import faust
import pytest
from aiokafka.errors import KafkaConnectionError
from faust.transport.drivers.aiokafka import Consumer
from kafka import KafkaProducer
from mode.threads import ServiceThread, WorkerThread

from ratchet_client.errors import BrokerError, RatchetError
from ratchet_client.ids import uuid7
from streams.errors import StoreError
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.faust_overrides import BundlingConsumer, consumer_threads_ended
from streams.kafka.records import Outgoing, Received
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics, end_offsets
from streams.kafka.worker import build_app, consume, consume_each, publish, run

RECORDS = 50


@pytest.fixture(scope="module")
def bootstrap() -> Iterator[str]:
    with EmbeddedBroker() as broker:
        yield broker.bootstrap


@pytest.fixture
def kafka(bootstrap: str) -> KafkaSettings:
    """A group and a topic of this test's own, the latter holding records 0 to 49 in two partitions."""
    name = uuid7()
    settings = KafkaSettings(
        bootstrap=bootstrap, partitions=2, session_timeout_s=2, group_prefix=name, events_topic=name
    )
    create_topics(settings)
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for number in range(RECORDS):
        producer.send(name, key=str(number).encode(), value=str(number).encode())
    producer.close()
    return settings


class Collect:
    """A handler that keeps what it got, and fails or stops the app when it was told to."""

    def __init__(self, *, until: int, failing_at: bytes | None = None, failure: Exception | None = None) -> None:
        self.values: list[bytes | None] = []
        self.batches: list[list[Received]] = []
        self.stop = asyncio.Event()
        self._until, self._failing_at, self._failure = until, failing_at, failure

    async def __call__(self, records: list[Received]) -> None:
        for record in records:
            if self._failure is not None and record.value == self._failing_at:
                raise self._failure
        self.batches.append(records)
        self.values.extend(record.value for record in records)
        if len(self.values) >= self._until:
            self.stop.set()


async def consume_into(
    collect: Collect, kafka: KafkaSettings, positions: dict[tuple[str, int], int] | None = None
) -> None:
    async def stored() -> dict[tuple[str, int], int]:
        return positions or {}

    app = build_app("test", kafka, bundle=7, positions=None if positions is None else stored)
    consume(app, kafka.events_topic, collect, bundles=2, within_s=0.2)
    async with asyncio.timeout(60):
        await run(app, collect.stop)


@pytest.mark.slow
async def test_records_of_a_failed_handler_are_delivered_again_after_a_restart(kafka: KafkaSettings) -> None:
    failing = Collect(until=RECORDS, failing_at=b"31", failure=StoreError("the disk is full"))
    with pytest.raises(StoreError, match="the disk is full"):
        await consume_into(failing, kafka)
    restarted = Collect(until=RECORDS - len(failing.values))
    await consume_into(restarted, kafka)
    assert b"31" not in failing.values
    assert {*failing.values, *restarted.values} == {str(number).encode() for number in range(RECORDS)}


@pytest.mark.slow
async def test_what_waits_behind_a_failure_is_not_acknowledged(kafka: KafkaSettings) -> None:
    """A stream that has failed goes on taking what waits; that of another partition follows on nothing unhandled."""
    app = build_app("test", kafka, bundle=5)

    async def fail(_: list[Received]) -> None:
        async with asyncio.timeout(60):
            while sum(map(bool, cast(BundlingConsumer, app.consumer)._handed.values())) < kafka.partitions:  # noqa: ASYNC110 - Faust has no event for it
                await asyncio.sleep(0.01)
        raise StoreError("the disk is full")

    consume(app, kafka.events_topic, fail)
    with pytest.raises(StoreError):
        await run(app, asyncio.Event())
    restarted = Collect(until=RECORDS)
    await consume_into(restarted, kafka)
    assert len(restarted.values) == RECORDS


@pytest.mark.parametrize(
    ("failure", "raised"),
    [(StoreError("the disk is full"), "the disk is full"), (asyncio.CancelledError(), "was cancelled")],
)
async def test_records_handled_side_by_side_are_committed_up_to_the_first_that_failed(
    kafka: KafkaSettings, failure: BaseException, raised: str
) -> None:
    handled: list[bytes | None] = []
    stop = asyncio.Event()

    def app_with(failing_at: bytes | None) -> faust.App:
        app = build_app("test", kafka, bundle=1)

        async def handle(records: list[Received]) -> None:
            for record in records:
                if record.value == failing_at:
                    raise failure
                handled.append(record.value)
            if len({*handled}) == RECORDS:
                stop.set()

        consume_each(app, kafka.events_topic, handle, 3)
        return app

    async with asyncio.timeout(60):
        with pytest.raises(RatchetError, match=raised):
            await run(app_with(b"31"), stop)
    assert b"31" not in handled
    async with asyncio.timeout(60):
        await run(app_with(None), stop)
    assert {*handled} == {str(number).encode() for number in range(RECORDS)}


async def test_an_unexpected_exception_ends_the_app_as_well(kafka: KafkaSettings) -> None:
    with pytest.raises(BrokerError, match="ZeroDivisionError"):
        await consume_into(Collect(until=RECORDS, failing_at=b"0", failure=ZeroDivisionError()), kafka)


@pytest.mark.slow
async def test_handled_records_are_not_read_again(kafka: KafkaSettings) -> None:
    await consume_into(Collect(until=RECORDS), kafka)
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    producer.send(kafka.events_topic, value=b"new")
    producer.close()
    second = Collect(until=1)
    await consume_into(second, kafka)
    assert second.values == [b"new"]


@pytest.mark.slow
async def test_stored_positions_override_the_groups_committed_offsets(kafka: KafkaSettings) -> None:
    await consume_into(Collect(until=RECORDS), kafka)
    ends = end_offsets(kafka.bootstrap, kafka.events_topic)
    again = Collect(until=ends[0] + 1)
    await consume_into(again, kafka, {(kafka.events_topic, 0): 0, (kafka.events_topic, 1): ends[1] - 1})
    assert len(again.values) == ends[0] + 1


async def test_what_one_fetch_brings_is_handled_at_once(kafka: KafkaSettings) -> None:
    collect = Collect(until=RECORDS)
    await consume_into(collect, kafka)
    # It takes two messages of Faust's at most.
    assert max(map(len, collect.batches)) > 2


async def test_reading_goes_on_as_soon_as_a_full_buffer_has_room(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler is slower than reading, so that what was read waits until no more may."""
    collect, full, slept = Collect(until=RECORDS), [False], list[float]()
    app = build_app("test", kafka, bundle=1)

    async def slowly(records: list[Received]) -> None:
        await asyncio.sleep(0.02)
        full.append(bool(cast(BundlingConsumer, app.consumer)._buffered_partitions))
        await collect(records)

    async def sleep(consumer: BundlingConsumer, seconds: float) -> None:
        if collect.values:  # before that it has no partition yet
            slept.append(seconds)
        await asyncio.sleep(seconds)

    monkeypatch.setattr(BundlingConsumer, "sleep", sleep)
    consume_each(app, kafka.events_topic, slowly, 2)
    async with asyncio.timeout(60):
        await run(app, collect.stop)
    assert any(full)
    assert 1 not in slept  # as Faust does then


async def test_a_full_buffer_is_not_forgotten_over_an_empty_partition(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One partition has been read to its end while the other's buffer is full: its records are not waited for long."""
    collect, waits = Collect(until=RECORDS), list[float]()
    app = build_app("test", kafka, bundle=1)
    waiting = Consumer._wait_next_records

    async def slowly(records: list[Received]) -> None:
        if records[0].partition == 0:
            await asyncio.sleep(0.02)
        await collect(records)

    async def wait(consumer: BundlingConsumer, timeout: float) -> object:  # noqa: ASYNC109 - the signature is Faust's
        if consumer._buffered_partitions:
            waits.append(timeout)
        return await waiting(consumer, timeout)

    monkeypatch.setattr(Consumer, "_wait_next_records", wait)
    consume_each(app, kafka.events_topic, slowly, 1)
    async with asyncio.timeout(60):
        await run(app, collect.stop)
    assert waits
    assert max(waits) < 1  # as Faust does then


class NotUnicode(str):
    """A header name that goes out as bytes that are not UTF-8."""

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"bad\xff"


async def test_a_header_name_that_is_not_utf8_does_not_stop_its_partition(kafka: KafkaSettings) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    producer.send(kafka.events_topic, value=b"odd", partition=0, headers=[(NotUnicode("name"), b"1")])
    producer.send(kafka.events_topic, value=b"after it", partition=0)
    producer.close()
    collect = Collect(until=RECORDS + 2)
    await consume_into(collect, kafka)
    (odd,) = (record for batch in collect.batches for record in batch if record.value == b"odd")
    assert odd.headers == (("bad\N{REPLACEMENT CHARACTER}", b"1"),)
    assert b"after it" in collect.values


async def test_messages_are_published_under_their_key_with_their_headers(kafka: KafkaSettings) -> None:
    collect = Collect(until=RECORDS + 3)
    app = build_app("test", kafka, bundle=100)
    consume(app, kafka.events_topic, collect)
    message = Outgoing(kafka.events_topic, b"key", b"value", (("error", b"none"),))
    app.task(lambda: publish(app, [message] * 3))
    async with asyncio.timeout(60):
        await run(app, collect.stop)
    assert collect.values.count(b"value") == 3
    assert sum(end_offsets(kafka.bootstrap, kafka.events_topic).values()) == RECORDS + 3


async def test_an_unreachable_cluster_is_a_broker_error() -> None:
    nowhere = KafkaSettings(bootstrap="127.0.0.1:1")
    with pytest.raises(BrokerError, match=r"127\.0\.0\.1:1"):
        await consume_into(Collect(until=1), nowhere)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_thread_that_could_not_start_is_waited_for() -> None:
    may_end = threading.Event()

    class Unstartable(ServiceThread):
        async def on_start(self) -> None:
            raise KafkaConnectionError

        async def on_thread_stop(self) -> None:
            await asyncio.to_thread(may_end.wait)

    service = Unstartable()
    with suppress(KafkaConnectionError):  # in which thread it is raised is a race of mode's
        await service.start()
    waiting = asyncio.create_task(consumer_threads_ended(60))
    await asyncio.sleep(0)
    assert not waiting.done()
    may_end.set()
    await waiting
    assert not any(isinstance(thread, WorkerThread) for thread in threading.enumerate())


@pytest.mark.nightly
async def test_a_worker_that_stalls_with_records_waiting_ends(kafka: KafkaSettings) -> None:
    settings = kafka.model_copy(update={"stall_timeout_s": 6.0})
    app = build_app("test", settings, bundle=7)
    collect = Collect(until=RECORDS)
    consume(app, settings.events_topic, collect)

    async def stand_still() -> None:
        await collect.stop.wait()
        # What Faust itself does for a rebalance, and after an outage may forget to take back.
        app.flow_control.suspend()
        app.consumer.stop_flow()
        await asyncio.sleep(settings.stall_timeout_s + 2)
        producer = KafkaProducer(bootstrap_servers=settings.bootstrap)
        producer.send(settings.events_topic, value=b"new")
        producer.close()

    app.task(stand_still)
    async with asyncio.timeout(60):
        with pytest.raises(BrokerError, match="nothing was read for 6 s"):
            await run(app, asyncio.Event())
    assert len(collect.values) == RECORDS


@pytest.mark.nightly
async def test_a_worker_with_nothing_to_read_keeps_running(kafka: KafkaSettings) -> None:
    settings = kafka.model_copy(update={"stall_timeout_s": 6.0})
    app = build_app("test", settings, bundle=7)
    collect, stop = Collect(until=RECORDS), asyncio.Event()
    consume(app, settings.events_topic, collect)
    task = asyncio.create_task(run(app, stop))
    await collect.stop.wait()
    await asyncio.sleep(2 * settings.stall_timeout_s)
    assert not task.done()
    stop.set()
    await task
