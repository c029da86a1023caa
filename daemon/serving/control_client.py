"""The client of the control API, for the command line, the learner and the demo."""

from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

from daemon.registry.schemas import Change, CycleReport, PromoteRequest, RollbackRequest, Schema, StatusReport
from streams.errors import ControlError


@dataclass(slots=True)
class ControlClient:
    """An asynchronous client of the serve role. Every method raises `ControlError`; nothing is retried."""

    base_url: str
    timeout_s: float = 300.0
    _http: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        self._http = httpx.AsyncClient(base_url=self.base_url, timeout=self.timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def status(self) -> StatusReport:
        return StatusReport.model_validate(await self._call("GET", "/status"))

    async def promote(self, request: PromoteRequest) -> Change:
        return Change.model_validate(await self._call("POST", "/promote", request))

    async def rollback(self, request: RollbackRequest) -> Change:
        return Change.model_validate(await self._call("POST", "/rollback", request))

    async def record_cycle(self, report: CycleReport) -> None:
        await self._call("POST", "/cycles", report)

    async def _call(self, method: str, path: str, body: Schema | None = None) -> Any:
        content = None if body is None else body.model_dump_json()
        try:
            response = await self._http.request(
                method, path, content=content, headers={"content-type": "application/json"}
            )
        except httpx.HTTPError as error:
            raise ControlError(
                f"nothing answers at {self.base_url} ({error!r}): is `ratchet run` up, and RATCHET_SERVING__PORT right?"
            ) from error
        if response.is_error:
            raise ControlError(f"{path} was refused: {_reason(response)}")
        return response.json()


def _reason(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError):
        return f"{response.status_code} {response.text[:300]}"
