"""The assemble role: one process that makes events of spans and of captured calls."""

import asyncio
import time
from collections.abc import Mapping

import structlog
import uvicorn

from ratchet_client.settings import Secret
from streams.access.access import Access
from streams.assembly.assembler import Assembler
from streams.assembly.server import build_status_app
from streams.assembly.settings import AssemblySettings
from streams.assembly.state import AssemblyState
from streams.assembly.status import AssemblyStatus
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics
from streams.kafka.worker import run, works
from streams.runtime.health import reachable
from streams.runtime.http_server import HttpServer, listen
from streams.runtime.tally import Tally

log = structlog.get_logger()

# Requests that are still open when the role is told to stop get this long.
LAST_SECONDS = 5


async def serve(
    kafka: KafkaSettings,
    settings: AssemblySettings,
    stop: asyncio.Event,
    keys: Mapping[str, Secret] | None = None,
    access: Access | None = None,
) -> None:
    """Run the role until `stop` is set or this task is cancelled. `keys` are those of `AdmissionSettings.principals`.

    `access` is by default that of a home without tokens.

    `kafka.bootstrap` must name a cluster. Raises a `RatchetError` when the role cannot go on: the process should then
    end with an error and be started again, which loses nothing.
    """
    access = access or Access(settings.host, "assembly.host")
    access.begin()
    await asyncio.to_thread(create_topics, kafka)
    state = await asyncio.to_thread(AssemblyState.open, settings, time.time())
    try:
        tally = Tally(AssemblyStatus())
        await _serve(Assembler(state, kafka, settings, keys or {}, tally), kafka, stop, access)
    finally:
        await asyncio.to_thread(state.close)


async def _serve(assembler: Assembler, kafka: KafkaSettings, stop: asyncio.Event, access: Access) -> None:
    settings, worker = assembler.settings, assembler.build_app()
    checks = {"log": reachable(kafka.bootstrap), "worker": works(worker)}
    app = build_status_app(assembler.tally, assembler.state, checks, access)
    server = HttpServer(
        uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=LAST_SECONDS),
        access.tls,
    )
    answering = asyncio.create_task(
        server.serve([listen(settings.host, settings.port, "the assembler", "RATCHET_ASSEMBLY__PORT")])
    )
    log.info("assembling", host=settings.host, port=settings.port)
    try:
        await run(worker, stop)
    finally:
        server.should_exit = True
        await answering
