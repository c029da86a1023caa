"""The client of the store's query API, for every process that is not the writer."""

from collections.abc import Mapping
from pathlib import Path

import httpx
import pyarrow as pa

from streams.access.tokens import own_token
from streams.errors import StoreError
from streams.runtime.http_client import HttpClient
from streams.store.database import Parameter, Parameters
from streams.store.status import StoreStatus

# The longest time that the record role gives a query.
LONGEST_QUERY_S = 3600.0
# The server's own limit comes first, and says which it is.
_ANSWER_S = 10.0


class StoreClient(HttpClient):
    """An asynchronous client of the record role."""

    server = "the store"
    remedy = "is the record role running?"
    error = StoreError

    def __init__(self, base_url: str, timeout_s: float = 60.0) -> None:
        super().__init__(base_url, timeout_s + _ANSWER_S, own_token("record"))

    async def query(
        self, sql: str, parameters: Mapping[str, Parameter] | None = None, timeout_s: float | None = None
    ) -> pa.Table:
        """The rows of one SELECT over `streams.store.tables.TABLES`, with a value for each `$name` in it.

        `timeout_s` is how long it may wait and run, by default as long as the record role's settings say.
        """
        body: dict[str, object] = {"sql": sql, "parameters": dict(parameters or {})}
        if timeout_s is not None:
            body["timeout_s"] = timeout_s
        response = await self._call("POST", "/query", body, None if timeout_s is None else timeout_s + _ANSWER_S)
        return pa.ipc.open_stream(response.content).read_all()

    async def download(self, sql: str, parameters: Parameters, to: Path) -> None:
        """Write the rows of one SELECT into the file `to` as they come, as an Arrow stream.

        Unlike `query` it keeps none of them in memory. It may take as long as the record role lets any query take.
        Raises `StoreError`; the file is then of no use.
        """
        body = {"sql": sql, "parameters": dict(parameters), "timeout_s": LONGEST_QUERY_S}
        try:
            asked = self._http.stream("POST", "/query", json=body, timeout=LONGEST_QUERY_S + _ANSWER_S)
            async with asked as response:
                if response.is_error:
                    await response.aread()
                    raise self.refusal("/query", response)
                with to.open("wb") as file:
                    async for part in response.aiter_bytes():
                        file.write(part)
        except httpx.HTTPError as error:
            raise StoreError(
                f"{self.server} at {self.base_url} did not give all rows of a query: {error!r}; {self.remedy}"
            ) from error

    async def status(self) -> StoreStatus:
        response = await self._call("GET", "/status")
        # A newer role's may have more.
        return StoreStatus.model_validate_json(response.content, extra="ignore")
