"""The Faust app of the record role: from the log into the store, and from the store's outbox back to the log."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager

import faust
import structlog

from ratchet_client.crash_points import CrashPoint, reach
from streams.errors import StoreError
from streams.intake.pipeline import Intake
from streams.kafka.records import Received
from streams.kafka.refusals import dead_letter_record
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import cluster_id, end_offsets
from streams.kafka.worker import build_app, consume, publish
from streams.runtime import tracing
from streams.store.decoded import Decoded
from streams.store.settings import StoreSettings
from streams.store.writer import Store

log = structlog.get_logger()

OUTBOX_BATCH = 500
_BUNDLES = 8


def build_processor(
    store: Store,
    intake: Intake,
    kafka: KafkaSettings,
    settings: StoreSettings,
    has_sandbox: Callable[[str], bool] = lambda environment: False,
) -> faust.App:
    """An app that reads the events and transitions topics into `store`, beginning where the store left off.

    A batch is acknowledged when its transaction is committed and what follows from it is published. What is refused is
    published as a dead-letter record before: its bytes must not get into the store, where nothing redacts them.
    Episodes that had no sandbox are asked for again where `has_sandbox` says that their environment has one by now.
    """

    async def positions() -> Mapping[tuple[str, int], int]:
        # At each assignment, for a cluster may be replaced under its address while this process runs.
        ends = await asyncio.to_thread(_adopt_log, store, kafka)
        adopted.set()
        # A store that has none of a partition begins there, though a lost one may have been acknowledged for it.
        return {**dict.fromkeys(ends, 0), **store.positions()}

    app = build_app("record", kafka, bundle=settings.batch, positions=positions)
    decoding, publishing, adopted = asyncio.Lock(), asyncio.Lock(), asyncio.Event()

    async def drain_outbox() -> None:
        # One at a time: the outbox has one cursor, and the order of messages matters.
        async with publishing:
            if not await asyncio.to_thread(store.pending, 1):
                return
            async with _in_thread(store.draining()):
                await drain()

    async def drain() -> None:
        while pending := await asyncio.to_thread(store.pending, OUTBOX_BATCH):
            reach(CrashPoint.OUTBOX_PUBLISH_BEFORE)
            await publish(app, [entry.message for entry in pending])
            reach(CrashPoint.OUTBOX_PUBLISH_AFTER)
            await asyncio.to_thread(store.published, pending[-1].sequence)

    def record(topic: str, decode: Callable[[Received], Decoded]) -> None:
        async def decode_all(records: list[Received]) -> list[Decoded]:
            # Both topics share the redactor, which one thread at a time may use.
            async with decoding:
                return await asyncio.to_thread(lambda: [decode(received) for received in records])

        async def handle(records: list[Received]) -> None:
            began_ns = time.time_ns()
            decoded = await decode_all(records)
            refused = [
                dead_letter_record(record.received, record.refused, kafka.dead_letters_topic)
                for record in decoded
                if record.refused is not None and store.is_new(*record.received[:3])
            ]
            if refused:
                reach(CrashPoint.DEAD_LETTERS_PUBLISH_BEFORE)
                await publish(app, refused)
                reach(CrashPoint.DEAD_LETTERS_PUBLISH_AFTER)
            appended = await asyncio.to_thread(store.append, decoded)
            if tracing.is_on():
                stored = (each.received.header(tracing.TRACEPARENT) for each in decoded if each.refused is None)
                tracing.consumed("record", map(tracing.traceparent_of, stored), began_ns)
            if appended.dead_letters or appended.duplicates or appended.quarantined:
                log.warning(
                    "not every record was stored",
                    topic=topic,
                    dead_letters=appended.dead_letters,
                    quarantined=appended.quarantined,
                    duplicates=appended.duplicates,
                )
            await drain_outbox()

        consume(app, topic, handle, bundles=_BUNDLES, within_s=settings.batch_s)

    async def ask_again() -> None:
        await adopted.wait()
        await asyncio.to_thread(store.ask_again, has_sandbox)
        await drain_outbox()

    async def tidy() -> None:
        try:
            merged = await asyncio.to_thread(store.tidy, settings.lake.keep_days)
        except StoreError as error:
            log.warning("small files stay until the next time", error=str(error))
        else:
            log.debug("merged small files", files=merged)

    record(kafka.events_topic, intake.event)
    record(kafka.transitions_topic, intake.result)
    # What a crash left between a commit and its publication goes out before anything else happens.
    app.task(drain_outbox)
    app.task(ask_again)
    if settings.is_lake:
        app.timer(settings.lake.merge_s)(tidy)
    return app


@asynccontextmanager
async def _in_thread(manager: AbstractContextManager[None]) -> AsyncIterator[None]:
    """A context whose entering and leaving wait for another process."""
    await asyncio.to_thread(manager.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(manager.__exit__, None, None, None)


def _adopt_log(store: Store, kafka: KafkaSettings) -> Mapping[tuple[str, int], int]:
    # Another process may have read until now what is assigned to this one.
    store.catch_up()
    read = store.positions()
    ends = {
        (topic, partition): offset
        for topic in (kafka.events_topic, kafka.transitions_topic)
        for partition, offset in end_offsets(kafka.bootstrap, topic, kafka.security).items()
    }
    store.adopt_log(cluster_id(kafka.bootstrap, kafka.security), ends, read)
    return ends
