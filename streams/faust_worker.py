"""The one way to consume the log: a Faust app that acknowledges an event only after its work is durable.

The record role and the branch role are built on it. Faust's defaults acknowledge first and lose what fails; every
setting here closes one of those holes.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import faust
from aiokafka.errors import KafkaError
from faust.contrib.asgi import faust_app_running
from faust.transport.drivers.aiokafka import Consumer, Transport
from faust.types import TP
from faust.types.transports import ConsumerT
from mode import CrashingSupervisor

from streams.errors import BrokerError, RatchetError
from streams.log import Outgoing, Received
from streams.settings import KafkaSettings

Handle = Callable[[list[Received]], Awaitable[None]]
Positions = Callable[[], Awaitable[Mapping[tuple[str, int], int]]]

STOP_TIMEOUT_S = 20.0
PRODUCER_MAX_REQUEST_BYTES = 16 * 2**20


def build_app(role: str, kafka: KafkaSettings, *, positions: Positions | None = None) -> faust.App:
    """A Faust app whose consumer group is the role's.

    `positions` gives, per (topic, partition), the next offset to read; it is asked at each assignment. Where it has an
    entry, that is read next, whatever the group committed. Without one the committed offset counts, or the beginning.
    """
    servers = kafka.bootstrap.removeprefix("kafka://")
    app = faust.App(
        f"{kafka.group_prefix}-{role}",
        broker=[f"kafka://{server.strip()}" for server in servers.split(",")],
        value_serializer="raw",
        key_serializer="raw",
        store="memory://",
        # Faust makes this folder, and without tables keeps nothing in it.
        datadir=Path(tempfile.gettempdir()) / "ratchet-faust",
        agent_supervisor=CrashingSupervisor,
        # With the default, stopping waits for ever for events that were taken but never acknowledged.
        stream_wait_empty=False,
        broker_session_timeout=kafka.session_timeout_s,
        broker_heartbeat_interval=kafka.session_timeout_s / 4,
        producer_max_request_size=PRODUCER_MAX_REQUEST_BYTES,
        topic_disable_leader=True,
        web_enabled=False,
        web_tables_enabled=False,
        web_router_enabled=False,
    )
    if positions is not None:
        app.transport = _SeekingTransport(app.conf.broker_consumer, app, positions)
    return app


def consume(app: faust.App, topic: str, handle: Handle, *, batch: int, within_s: float) -> None:
    """Have `app` pass the records of `topic` to `handle`, up to `batch` at a time, waiting at most `within_s` for more.

    `handle` returns only when all it was given is durable; only then are they acknowledged, in order. When it raises,
    nothing of the batch is acknowledged and the app crashes: the process must end and be started again.
    """

    async def agent(stream: Any) -> None:
        async for events in stream.noack_take(batch, within=within_s):
            await handle([_received(event.message) for event in events])
            for event in events:
                await stream.ack(event)

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
                headers=[(name, text.encode()) for name, text in message.headers.items()],
            )
            for message in messages
        ]
        await asyncio.gather(*pending)
    except KafkaError as error:
        raise BrokerError(f"could not publish {len(messages)} messages: {error!r}; is the cluster healthy?") from error


async def run(app: faust.App, stop: asyncio.Event) -> None:
    """Run `app` on this event loop until `stop` is set.

    Raises what a handler raised if that is a `RatchetError`, and `BrokerError` for anything else that ended the app.
    """
    try:
        async with faust_app_running(app, stop_timeout=STOP_TIMEOUT_S):
            await _until_stopped_or_crashed(app, stop)
    except KafkaError as error:
        raise BrokerError(f"{app.conf.id} lost the Kafka cluster at {app.conf.broker}: {error!r}") from error
    except TimeoutError as error:
        raise BrokerError(f"{app.conf.id} did not stop within {STOP_TIMEOUT_S:.0f} s") from error
    if app.crashed:
        if isinstance(app.crash_reason, RatchetError):
            raise app.crash_reason
        raise BrokerError(f"{app.conf.id} crashed: {app.crash_reason!r}; start it again") from app.crash_reason


async def _until_stopped_or_crashed(app: faust.App, stop: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(app.wait_until_stopped())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
            with suppress(asyncio.CancelledError):
                await wait


def _received(message: Any) -> Received:
    return Received(message.topic, message.partition, message.offset, message.key, message.value)


class _SeekingConsumer(Consumer):
    """Begins each assignment at the positions that the store holds: the group's commits may be older or newer."""

    positions: Positions

    async def perform_seek(self) -> None:
        await super().perform_seek()
        positions = await self.positions()
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


class _SeekingTransport(Transport):
    def __init__(self, url: Any, app: faust.App, positions: Positions) -> None:
        super().__init__(url, app)
        self._positions = positions

    def create_consumer(self, callback: Any, **kwargs: Any) -> ConsumerT:
        consumer = _SeekingConsumer(self, callback=callback, **kwargs)
        consumer.positions = self._positions
        return consumer
