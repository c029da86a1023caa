"""The client of the store's query API, for every process that is not the writer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import httpx
import pyarrow as pa

from streams.errors import StoreError
from streams.store.database import Parameter
from streams.store.status import StoreStatus


@dataclass(slots=True)
class StoreClient:
    """An asynchronous client of the record role at `base_url`. Use it as a context manager, or call `close`.

    Every method raises `StoreError` when the role cannot be reached or refuses; nothing is retried.
    """

    base_url: str
    timeout_s: float = 60.0
    _http: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        self._http = httpx.AsyncClient(base_url=self.base_url, timeout=self.timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def query(self, sql: str, parameters: Mapping[str, Parameter] | None = None) -> pa.Table:
        """The rows of one SELECT over `streams.store.tables.TABLES`, with a value for each `$name` in it."""
        response = await self._call("POST", "/query", {"sql": sql, "parameters": dict(parameters or {})})
        return pa.ipc.open_stream(response.content).read_all()

    async def status(self) -> StoreStatus:
        response = await self._call("GET", "/status", None)
        return StoreStatus.model_validate_json(response.content)

    async def _call(self, method: str, path: str, body: dict[str, object] | None) -> httpx.Response:
        try:
            response = await self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise StoreError(
                f"the store at {self.base_url} did not answer: {error!r}; is the record role running?"
            ) from error
        if response.is_error:
            raise StoreError(f"the store refused {path} with {response.status_code}: {response.text[:500]}")
        return response
