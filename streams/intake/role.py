"""The record role: a process that consumes the log, writes the store, and answers questions about it over HTTP.

One alone writes a DuckDB file; of several over a lake each has its partitions of the log.
"""

import asyncio
import gc
from collections.abc import Callable
from pathlib import Path

import faust
import structlog
import uvicorn

from streams.access.access import Access
from streams.intake.admission import AUTHENTICATE, UNAUTHENTICATED, Admission, AdmissionSettings
from streams.intake.pipeline import Intake
from streams.intake.processor import build_processor
from streams.kafka.operator_key import OPERATOR_KEY_FILE, make_operator_key
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics
from streams.kafka.worker import run, works
from streams.redaction.key import KEY_FILE, redaction_key
from streams.redaction.redactor import Redactor
from streams.redaction.settings import RedactionSettings
from streams.runtime.arenas import share_arenas
from streams.runtime.health import reachable
from streams.runtime.http_server import HttpServer, listen
from streams.store.api import build_api
from streams.store.lake_keys import agree_on_keys
from streams.store.limited_queries import LimitedQueries
from streams.store.settings import StoreSettings
from streams.store.writer import Store
from streams.trust.holdout import HoldoutSettings
from streams.trust.rules import TrustSettings

log = structlog.get_logger()

# Requests that are still open when the role is told to stop get this long.
_LAST_SECONDS = 5
_ALLOCATIONS_BETWEEN_COLLECTIONS = 200_000


async def serve(
    kafka: KafkaSettings,
    settings: StoreSettings,
    holdout: HoldoutSettings,
    stop: asyncio.Event,
    admission: AdmissionSettings = AdmissionSettings(),  # noqa: B008 - frozen
    redaction: RedactionSettings = RedactionSettings(),  # noqa: B008 - frozen
    trust: TrustSettings = TrustSettings(),  # noqa: B008 - frozen
    has_sandbox: Callable[[str], bool] = lambda environment: False,
    access: Access | None = None,
) -> None:
    """Run the record role until `stop` is set or this task is cancelled.

    `has_sandbox` says of the name of an environment whether it is installed and configured: episodes that were not
    branched because it was not are branched then. `access` is by default that of a home without tokens.

    `kafka.bootstrap` must name a cluster. Raises a `RatchetError` when the role cannot go on: the process should then
    end with an error and be started again, which loses nothing.
    """
    access = access or Access(settings.host, "store.host")
    access.begin()
    share_arenas()
    collect_rarely()
    if not admission.authenticates:
        log.warning("events are not authenticated", risk=UNAUTHENTICATED, remedy=AUTHENTICATE)
    await asyncio.to_thread(create_topics, kafka)
    key = await asyncio.to_thread(redaction_key, settings.path.parent)
    operators = await asyncio.to_thread(operator_key, settings.path.parent, admission)
    intake = Intake(Admission(admission, operators, holdout), Redactor(redaction, key))
    store = await asyncio.to_thread(Store.open, settings, holdout, kafka, admission.quota, trust=trust)
    try:
        if settings.is_lake:
            keys = {KEY_FILE: key, OPERATOR_KEY_FILE: operators}
            await asyncio.to_thread(agree_on_keys, settings.lake, keys)
        processor = build_processor(store, intake, kafka, settings, has_sandbox)
        await _serve(store, processor, settings, admission.authenticates, kafka, stop, access)
    finally:
        await asyncio.to_thread(store.close)


async def _serve(
    store: Store,
    processor: faust.App,
    settings: StoreSettings,
    authenticated: bool,
    kafka: KafkaSettings,
    stop: asyncio.Event,
    access: Access,
) -> None:
    queries = LimitedQueries(store, settings)
    checks = {"log": reachable(kafka.bootstrap), "worker": works(processor)}
    path = None if settings.is_lake else settings.path
    api = build_api(store, queries, authenticated=authenticated, checks=checks, path=path, access=access)
    server = HttpServer(
        uvicorn.Config(api, log_level="warning", lifespan="off", timeout_graceful_shutdown=_LAST_SECONDS),
        access.tls,
    )
    answering = asyncio.create_task(
        server.serve([listen(settings.host, settings.port, "the query API", "RATCHET_STORE__PORT")])
    )
    try:
        await run(processor, stop)
    finally:
        server.should_exit = True
        await queries.stop()
        await answering


def collect_rarely() -> None:
    """Have Python look for cycles less often, and never among what was imported.

    Events are many objects and no cycles: with the defaults, more than half of the time to read one goes there.
    """
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS_BETWEEN_COLLECTIONS)


def operator_key(home: Path, admission: AdmissionSettings) -> bytes:
    """The key that retractions of operators, and practice, are signed with: as configured, or of its file in `home`."""
    configured = admission.operator_key.get_secret_value()
    return configured.encode() if configured else make_operator_key(home)
