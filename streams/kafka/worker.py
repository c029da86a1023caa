"""The one way to consume the log: a Faust app that acknowledges a record only after its work is durable.

The record, branch and otlp roles are built on it. Faust's defaults acknowledge first and lose what fails. The settings
here close those holes that settings can close; `streams.kafka.faust_overrides` closes the others.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import faust
from aiokafka.errors import KafkaError
from faust.auth import SASLCredentials, SSLCredentials
from faust.contrib.asgi import faust_app_running
from mode import CrashingSupervisor

from ratchet_client.crash_points import CrashPoint, reach
from ratchet_client.errors import BrokerError, RatchetError
from ratchet_client.kafka.remedies import remedy_for
from ratchet_client.kafka.security import KafkaSecurity, tls_context
from streams.kafka.batches import read_every_batch
from streams.kafka.faust_overrides import (
    BundlingTransport,
    Positions,
    consumer_threads_ended,
    take_unacknowledged,
)
from streams.kafka.records import Outgoing, Received
from streams.kafka.settings import KafkaSettings

Handle = Callable[[list[Received]], Awaitable[None]]

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
        # With the default, stopping waits permanently for events that were taken but never acknowledged.
        stream_wait_empty=False,
        stream_buffer_maxsize=WAITING_BUNDLES,
        broker_max_poll_records=bundle,
        # A cluster that has just started may not know its topics yet, and a consumer that joins then is assigned
        # nothing until it asks again.
        consumer_metadata_max_age_ms=int(METADATA_AGE_S * 1000),
        broker_session_timeout=kafka.session_timeout_s,
        broker_heartbeat_interval=kafka.session_timeout_s / 4,
        producer_max_request_size=PRODUCER_MAX_REQUEST_BYTES,
        topic_disable_leader=True,
        web_enabled=False,
        web_tables_enabled=False,
        web_router_enabled=False,
    )
    read_every_batch()
    app.transport = BundlingTransport(app.conf.broker_consumer, app, kafka, positions)
    return app


def consume(app: faust.App, topic: str, handle: Handle, *, bundles: int = 1, within_s: float = 0.0) -> None:
    """Have `app` pass the records of `topic` to `handle`, up to `bundles` fetches at once, waiting `within_s` for them.

    `handle` returns only when all it was given is durable; only then are they acknowledged, in order. When it raises,
    nothing of the batch is acknowledged and the app crashes: the process must end and be started again.
    """
    transport = cast(BundlingTransport, app.transport)

    async def agent(stream: Any) -> None:
        async for events in take_unacknowledged(stream, bundles, within_s):
            with transport.watchdog.handling():
                await handle([received for event in events for received in event.value])
                reach(CrashPoint.ACK_BEFORE)
                for event in events:
                    await stream.ack(event)
                reach(CrashPoint.ACK_AFTER)

    _read_by(app, topic, agent)


def consume_each(app: faust.App, topic: str, handle: Handle, at_once: int) -> None:
    """Have `app` pass each fetch of `topic` to `handle`, the next as soon as fewer than `at_once` are being handled.

    Each is acknowledged when `handle` returns, and committed once all before it are acknowledged, too. Otherwise as
    `consume`.
    """
    transport = cast(BundlingTransport, app.transport)

    async def agent(stream: Any) -> None:
        free = asyncio.Semaphore(at_once)

        async def work(event: Any) -> None:
            with transport.watchdog.handling():
                await _uncancelled(handle(event.value), topic)
                reach(CrashPoint.ACK_BEFORE)
                await stream.ack(event)
                reach(CrashPoint.ACK_AFTER)
            free.release()

        try:
            async with asyncio.TaskGroup() as group:
                await free.acquire()
                async for (event,) in take_unacknowledged(stream, 1, 0.0):
                    group.create_task(work(event))
                    await free.acquire()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    _read_by(app, topic, agent)


def _read_by(app: faust.App, topic: str, agent: Callable[[Any], Awaitable[None]]) -> None:
    """Have `agent` read the stream of `topic`, for which the watchdog looks then."""
    cast(BundlingTransport, app.transport).topics.add(topic)
    app.agent(app.topic(topic, value_serializer="raw"), name=f"{app.conf.id}-{topic}", concurrency=1)(agent)


async def _uncancelled(work: Awaitable[None], topic: str) -> None:
    """Await `work`. Raises `BrokerError` where it was cancelled from within: a group would take that for its end."""
    try:
        await work
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise BrokerError(f"the work on a record of {topic} was cancelled; start it again") from error


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
                value=message.body,
                partition=None,
                timestamp=None,
                headers=list(message.headers),
            )
            for message in messages
        ]
        await asyncio.gather(*pending)
    except KafkaError as error:
        remedy = remedy_for(error, "is the cluster healthy?")
        raise BrokerError(f"could not publish {len(messages)} messages: {error!r}; {remedy}") from error


async def run(app: faust.App, stop: asyncio.Event) -> None:
    """Run `app` on this event loop until `stop` is set.

    Raises what a handler raised if that is a `RatchetError`, and `BrokerError` for anything else that ended the app,
    also when it stands still.
    """
    try:
        async with faust_app_running(app, stop_timeout=STOP_TIMEOUT_S):
            await _until_stopped_or_crashed(app, stop)
    except KafkaError as error:
        raise BrokerError(
            f"{app.conf.id} lost the Kafka cluster at {app.conf.broker}: {error!r}; {remedy_for(error)}"
        ) from error
    except TimeoutError as error:
        raise BrokerError(f"{app.conf.id} did not stop within {STOP_TIMEOUT_S:.0f} s") from error
    finally:
        await consumer_threads_ended(STOP_TIMEOUT_S)
    if app.crashed:
        if isinstance(app.crash_reason, RatchetError):
            raise app.crash_reason
        remedy = remedy_for(app.crash_reason, "start it again") if app.crash_reason else "start it again"
        raise BrokerError(f"{app.conf.id} crashed: {app.crash_reason!r}; {remedy}") from app.crash_reason


def works(app: faust.App) -> Callable[[], Awaitable[str]]:
    """The check, for `/readyz`, that `app` has started and has not crashed."""

    async def check() -> str:
        if app.crashed:
            return f"it crashed: {app.crash_reason!r}"
        return "" if app.started else "it has not started yet"

    return check


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
    watchdog = cast(BundlingTransport, app.transport).watchdog
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
