"""The query API: the HTTP interface of the one process that has the store open. The record role serves it."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import Field

from ratchet_client.settings import FrozenModel
from streams.access.access import Access, caller_of
from streams.access.guard import guard
from streams.access.tokens import AccessRole
from streams.runtime.health import Check, add_health
from streams.runtime.http_errors import answer_errors
from streams.runtime.metrics import process_registry
from streams.store.client import LONGEST_QUERY_S
from streams.store.database import Parameter
from streams.store.limited_queries import LimitedQueries
from streams.store.metrics import StoreFile
from streams.store.settings import StoreSettings
from streams.store.status import StoreStatus, status
from streams.store.writer import Store

QUERY = "/query"
NEEDS = {QUERY: AccessRole.READ, "/status": AccessRole.READ, "/metrics": AccessRole.READ}


class Query(FrozenModel):
    """One SELECT over the tables of the store. `parameters` has a value for each `$name` in it.

    `timeout_s` is how many seconds it may wait and run, for one that is known to be long; by default the settings say.
    """

    sql: str
    parameters: dict[str, Parameter] = Field(default_factory=dict)
    timeout_s: float | None = Field(default=None, gt=0, le=LONGEST_QUERY_S)


def build_api(
    store: Store,
    queries: LimitedQueries | None = None,
    *,
    authenticated: bool | None = None,
    checks: Mapping[str, Check] | None = None,
    path: Path | None = None,
    access: Access | None = None,
) -> FastAPI:
    """`POST /query` answers with an Arrow IPC stream, `GET /status` with a `StoreStatus`, `GET /metrics` with metrics.

    `queries` sets the limits, by default those of `StoreSettings`; `authenticated` says that every event has to be
    signed. `checks` are those of `/readyz` beside the store's own. `path` is that of the file, for its metrics.
    `access` is by default that of no tokens.
    """
    limited = queries or LimitedQueries(store, StoreSettings())
    api = FastAPI(title="Ratchet store", docs_url=None, redoc_url=None, openapi_url=None)
    answer_errors(api)
    guard(api, access or Access(), NEEDS, filters_rows=QUERY)

    async def is_queried() -> str:
        await asyncio.to_thread(store.query, "SELECT 1")
        return ""

    add_health(api, {"store": is_queried, **(checks or {})})

    metrics = process_registry("record", store.write_seconds, *([] if path is None else [StoreFile(path)]))

    @api.post(QUERY)
    async def query(body: Query, request: Request) -> Response:
        caller = caller_of(request.scope)
        rows = None if caller is None else caller.rows
        return await limited.answer(request, body.sql, body.parameters, body.timeout_s, rows)

    @api.get("/status")
    def report() -> StoreStatus:
        return status(store, authenticated)

    @api.get("/metrics")
    def figures() -> Response:
        return Response(generate_latest(metrics), media_type=CONTENT_TYPE_LATEST)

    return api
