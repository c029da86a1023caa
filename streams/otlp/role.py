"""The otlp role: one process that takes OTLP over HTTP, and assembles what it took into episodes."""

import asyncio
import time
from collections.abc import Mapping

import structlog
import uvicorn
from fastapi import FastAPI

from streams.kafka.publisher import Publisher
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics
from streams.kafka.worker import run
from streams.otlp.assembler import Assembler
from streams.otlp.server import build_intake
from streams.otlp.settings import OtlpSettings
from streams.otlp.state import AssemblyState
from streams.otlp.tally import Tally
from streams.runtime.http_server import HttpServer, listen
from streams.settings import Secret

log = structlog.get_logger()

# Requests that are still open when the role is told to stop get this long.
LAST_SECONDS = 5


async def serve(
    kafka: KafkaSettings, settings: OtlpSettings, stop: asyncio.Event, keys: Mapping[str, Secret] | None = None
) -> None:
    """Run the role until `stop` is set or this task is cancelled. `keys` are those of `AdmissionSettings.principals`.

    `kafka.bootstrap` must name a cluster. Raises a `RatchetError` when the role cannot go on: the process should then
    end with an error and be started again, which loses nothing.
    """
    await asyncio.to_thread(create_topics, kafka)
    state = await asyncio.to_thread(AssemblyState.open, settings, time.time())
    publisher = Publisher(kafka, settings.publish_timeout_s, settings.max_record_bytes)
    try:
        tally = Tally()
        assembler = Assembler(state, kafka, settings, keys or {}, tally)
        await _serve(assembler, build_intake(settings, kafka.spans_topic, publisher.publish, tally), stop)
    finally:
        await asyncio.to_thread(publisher.close)
        await asyncio.to_thread(state.close)


async def _serve(assembler: Assembler, intake: FastAPI, stop: asyncio.Event) -> None:
    settings = assembler.settings
    server = HttpServer(
        uvicorn.Config(intake, log_level="warning", lifespan="off", timeout_graceful_shutdown=LAST_SECONDS)
    )
    answering = asyncio.create_task(
        server.serve([listen(settings.host, settings.port, "the OTLP intake", "RATCHET_OTLP__PORT")])
    )
    log.info("receiving OTLP", host=settings.host, port=settings.port, tokens=len(settings.tokens))
    try:
        await run(assembler.build_app(), stop)
    finally:
        server.should_exit = True
        await answering
