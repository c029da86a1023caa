"""The query API: the HTTP interface of the one process that has the store open. The record role serves it."""

import pyarrow as pa
from fastapi import FastAPI, HTTPException, Response
from pydantic import Field

from streams.errors import StoreError
from streams.runtime.http_errors import answer_errors
from streams.settings import FrozenModel
from streams.store.database import Parameter
from streams.store.status import StoreStatus, status
from streams.store.writer import Store

ARROW_STREAM = "application/vnd.apache.arrow.stream"


class Query(FrozenModel):
    """One SELECT over the tables of the store. `parameters` has a value for each `$name` in it."""

    sql: str
    parameters: dict[str, Parameter] = Field(default_factory=dict)


def build_api(store: Store, authenticated: bool | None = None) -> FastAPI:
    """`POST /query` answers with an Arrow IPC stream, `GET /status` with a `StoreStatus`.

    `authenticated` says that every event has to be signed.
    """
    api = FastAPI(title="Ratchet store", docs_url=None, redoc_url=None)
    answer_errors(api)

    @api.post("/query")
    def query(body: Query) -> Response:
        try:
            table = store.query(body.sql, body.parameters)
        except StoreError as error:
            raise HTTPException(400, str(error)) from error
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return Response(sink.getvalue().to_pybytes(), media_type=ARROW_STREAM)

    @api.get("/status")
    def report() -> StoreStatus:
        return status(store, authenticated)

    return api
