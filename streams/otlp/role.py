"""The otlp role: one process that puts OTLP over HTTP into the log, from where the assemble role takes it."""

import asyncio

import structlog
import uvicorn

from streams.access.access import Access
from streams.kafka.publisher import Publisher
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics
from streams.otlp.server import access_of, build_intake
from streams.otlp.settings import OtlpSettings
from streams.otlp.status import OtlpStatus
from streams.runtime.health import add_health, reachable
from streams.runtime.http_server import HttpServer, listen
from streams.runtime.tally import Tally

log = structlog.get_logger()

# Requests that are still open when the role is told to stop get this long.
LAST_SECONDS = 5


async def serve(
    kafka: KafkaSettings, settings: OtlpSettings, stop: asyncio.Event, access: Access | None = None
) -> None:
    """Run the role until `stop` is set or this task is cancelled. `access` is by default that of a home without tokens.

    `kafka.bootstrap` must name a cluster. Raises a `RatchetError` when the role cannot go on: the process should then
    end with an error and be started again, which loses nothing.
    """
    access = access or access_of(settings)
    access.begin()
    await asyncio.to_thread(create_topics, kafka)
    publisher = Publisher(kafka, settings.publish_timeout_s, settings.max_record_bytes)
    intake = build_intake(settings, kafka.spans_topic, publisher.publish, Tally(OtlpStatus()), access)
    add_health(intake, {"log": reachable(kafka.bootstrap)})
    server = HttpServer(
        uvicorn.Config(intake, log_level="warning", lifespan="off", timeout_graceful_shutdown=LAST_SECONDS),
        access.tls,
    )
    try:
        answering = asyncio.create_task(
            server.serve([listen(settings.host, settings.port, "the OTLP intake", "RATCHET_OTLP__PORT")])
        )
        stopping = asyncio.create_task(stop.wait())
        log.info("receiving OTLP", host=settings.host, port=settings.port, tokens=len(settings.tokens))
        try:
            await asyncio.wait((answering, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            server.should_exit = True
            await answering
    finally:
        await asyncio.to_thread(publisher.close)
