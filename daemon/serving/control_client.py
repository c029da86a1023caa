"""The client of the control API, for the command line, the learner, the demo and the pages."""

from typing import Any
from urllib.parse import urlencode

import httpx
from pydantic import TypeAdapter

from daemon.registry.audit import AuditEntry
from daemon.registry.schemas import (
    Change,
    CycleReport,
    DecisionRequest,
    Drill,
    DrillRequest,
    HoldRequest,
    PromoteRequest,
    RollbackRequest,
    StatusReport,
)
from streams.access.tokens import own_token
from streams.errors import ControlError
from streams.runtime.http_client import HttpClient

_ENTRIES = TypeAdapter(list[AuditEntry])


class ControlClient(HttpClient):
    """An asynchronous client of the serve role; all that it asks is about `group`, empty for the default one.

    `token` is by default this process's own.
    """

    server = "the control API"
    remedy = "is `ratchet run` up, and RATCHET_SERVING__PORT right?"
    error = ControlError

    def __init__(
        self,
        base_url: str,
        timeout_s: float = 300.0,
        group: str = "",
        token: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(base_url, timeout_s, own_token("serve") if token is None else token, transport)
        self._group = {"group": group} if group else {}

    async def load(self) -> None:
        """Have the group's champion loaded, which may be cold."""
        await self._asked("POST", "/load")

    async def status(self) -> StatusReport:
        return StatusReport.model_validate_json((await self._asked("GET", "/status")).content)

    async def history(self, limit: int) -> list[AuditEntry]:
        """The newest entries of the audit log, oldest of them first."""
        return _ENTRIES.validate_json((await self._asked("GET", "/history", limit=limit)).content)

    async def promote(self, request: PromoteRequest) -> Change:
        answer = await self._asked("POST", "/promote", request.model_dump(mode="json"))
        return Change.model_validate_json(answer.content)

    async def approve(self, request: DecisionRequest) -> Change:
        answer = await self._asked("POST", "/approve", request.model_dump(mode="json"))
        return Change.model_validate_json(answer.content)

    async def reject(self, request: DecisionRequest) -> AuditEntry:
        answer = await self._asked("POST", "/reject", request.model_dump(mode="json"))
        return AuditEntry.model_validate_json(answer.content)

    async def rollback(self, request: RollbackRequest) -> Change:
        answer = await self._asked("POST", "/rollback", request.model_dump(mode="json"))
        return Change.model_validate_json(answer.content)

    async def drill_rollback(self, request: DrillRequest) -> Drill:
        answer = await self._asked("POST", "/drill", request.model_dump(mode="json"))
        return Drill.model_validate_json(answer.content)

    async def restore(self, request: DecisionRequest) -> Change:
        answer = await self._asked("POST", "/restore", request.model_dump(mode="json"))
        return Change.model_validate_json(answer.content)

    async def hold(self, request: HoldRequest) -> AuditEntry:
        """The entry of the hold that stands from now on."""
        answer = await self._asked("POST", "/hold", request.model_dump(mode="json"))
        return AuditEntry.model_validate_json(answer.content)

    async def resume(self, request: HoldRequest) -> None:
        await self._asked("POST", "/resume", request.model_dump(mode="json"))

    async def metrics(self) -> str:
        """The figures, as Prometheus reads them."""
        return (await self._call("GET", "/metrics")).text

    async def record_cycle(self, report: CycleReport) -> None:
        await self._asked("POST", "/cycles", report.model_dump(mode="json"))

    async def _asked(self, method: str, path: str, body: Any = None, **query: object) -> httpx.Response:
        asked = self._group | query
        return await self._call(method, f"{path}?{urlencode(asked)}" if asked else path, body)
