"""The record role: one process that consumes the log, owns the store, and answers questions about it over HTTP."""

import asyncio
import gc
import secrets
from pathlib import Path

import pyarrow as pa
import uvicorn
from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel, ConfigDict

from streams.admission import Admission, AdmissionSettings
from streams.errors import StoreError
from streams.faust_worker import run
from streams.files import write_atomically
from streams.holdout import HoldoutSettings
from streams.http_server import HttpServer, listen
from streams.intake import Intake
from streams.processor import build_processor
from streams.redaction.redactor import Redactor
from streams.redaction.settings import RedactionSettings
from streams.settings import KafkaSettings, StoreSettings
from streams.store import Store
from streams.store_status import StoreStatus, status
from streams.topics import create_topics

_ALLOCATIONS_BETWEEN_COLLECTIONS = 200_000
ARROW_STREAM = "application/vnd.apache.arrow.stream"


class Query(BaseModel):
    """One SELECT over the tables of the store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sql: str


def build_api(store: Store) -> FastAPI:
    """`POST /query` answers with an Arrow IPC stream, `GET /status` with a `StoreStatus`."""
    api = FastAPI(title="Ratchet store", docs_url=None, redoc_url=None)

    @api.post("/query")
    def query(body: Query) -> Response:
        try:
            table = store.query(body.sql)
        except StoreError as error:
            raise HTTPException(400, str(error)) from error
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return Response(sink.getvalue().to_pybytes(), media_type=ARROW_STREAM)

    @api.get("/status")
    def report() -> StoreStatus:
        return status(store)

    return api


async def serve(
    kafka: KafkaSettings,
    settings: StoreSettings,
    holdout: HoldoutSettings,
    stop: asyncio.Event,
    admission: AdmissionSettings = AdmissionSettings(),  # noqa: B008 - frozen
    redaction: RedactionSettings = RedactionSettings(),  # noqa: B008 - frozen
) -> None:
    """Run the record role until `stop` is set or this task is cancelled.

    `kafka.bootstrap` must name a cluster. Raises a `RatchetError` when the role cannot go on: the process should then
    end with an error and be started again, which loses nothing.
    """
    collect_rarely()
    await asyncio.to_thread(create_topics, kafka)
    key = await asyncio.to_thread(redaction_key, settings.path.parent)
    intake = Intake(Admission(admission), Redactor(redaction, key))
    store = await asyncio.to_thread(Store.open, settings, holdout, kafka, admission.quota)
    try:
        await _serve(store, intake, kafka, settings, stop)
    finally:
        await asyncio.to_thread(store.close)


async def _serve(
    store: Store, intake: Intake, kafka: KafkaSettings, settings: StoreSettings, stop: asyncio.Event
) -> None:
    server = HttpServer(uvicorn.Config(build_api(store), log_level="warning", lifespan="off"))
    answering = asyncio.create_task(
        server.serve([listen(settings.host, settings.port, "the query API", "RATCHET_STORE__PORT")])
    )
    try:
        await run(build_processor(store, intake, kafka, settings), stop)
    finally:
        server.should_exit = True
        await answering


def collect_rarely() -> None:
    """Have Python look for cycles less often, and never among what was imported.

    Events are many objects and no cycles: with the defaults, more than half of the time to read one goes there.
    """
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS_BETWEEN_COLLECTIONS)


def redaction_key(home: Path) -> bytes:
    """The key that placeholders are made with, from its file in `home`; made there the first time."""
    path = home / "redaction.key"
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        write_atomically(path, secrets.token_bytes(32), mode=0o600)
    return path.read_bytes()
