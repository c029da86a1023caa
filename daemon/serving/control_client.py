"""The client of the control API, for the command line, the learner and the demo."""

from typing import Any

import httpx

from daemon.registry.schemas import (
    Change,
    CycleReport,
    DecisionRequest,
    Drill,
    DrillRequest,
    PromoteRequest,
    RollbackRequest,
    StatusReport,
)
from streams.access.tokens import own_token
from streams.errors import ControlError
from streams.runtime.http_client import HttpClient


class ControlClient(HttpClient):
    """An asynchronous client of the serve role; all that it asks is about `group`, empty for the default one."""

    server = "the control API"
    remedy = "is `ratchet run` up, and RATCHET_SERVING__PORT right?"
    error = ControlError

    def __init__(self, base_url: str, timeout_s: float = 300.0, group: str = "") -> None:
        super().__init__(base_url, timeout_s, own_token("serve"))
        self._query = f"?group={group}" if group else ""

    async def load(self) -> None:
        """Have the group's champion loaded, which may be cold."""
        await self._asked("POST", "/load")

    async def status(self) -> StatusReport:
        return StatusReport.model_validate_json((await self._asked("GET", "/status")).content)

    async def promote(self, request: PromoteRequest) -> Change:
        answer = await self._asked("POST", "/promote", request.model_dump(mode="json"))
        return Change.model_validate_json(answer.content)

    async def approve(self, request: DecisionRequest) -> Change:
        answer = await self._asked("POST", "/approve", request.model_dump(mode="json"))
        return Change.model_validate_json(answer.content)

    async def rollback(self, request: RollbackRequest) -> Change:
        answer = await self._asked("POST", "/rollback", request.model_dump(mode="json"))
        return Change.model_validate_json(answer.content)

    async def drill_rollback(self, request: DrillRequest) -> Drill:
        answer = await self._asked("POST", "/drill", request.model_dump(mode="json"))
        return Drill.model_validate_json(answer.content)

    async def restore(self, request: DecisionRequest) -> Change:
        answer = await self._asked("POST", "/restore", request.model_dump(mode="json"))
        return Change.model_validate_json(answer.content)

    async def record_cycle(self, report: CycleReport) -> None:
        await self._asked("POST", "/cycles", report.model_dump(mode="json"))

    async def _asked(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return await self._call(method, path + self._query, body)
