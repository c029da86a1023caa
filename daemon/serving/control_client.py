"""The client of the control API, for the command line, the learner and the demo."""

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
    """An asynchronous client of the serve role."""

    server = "the control API"
    remedy = "is `ratchet run` up, and RATCHET_SERVING__PORT right?"
    error = ControlError

    def __init__(self, base_url: str, timeout_s: float = 300.0) -> None:
        super().__init__(base_url, timeout_s, own_token("serve"))

    async def status(self) -> StatusReport:
        return StatusReport.model_validate_json((await self._call("GET", "/status")).content)

    async def promote(self, request: PromoteRequest) -> Change:
        answer = await self._call("POST", "/promote", request.model_dump(mode="json"))
        return Change.model_validate_json(answer.content)

    async def approve(self, request: DecisionRequest) -> Change:
        answer = await self._call("POST", "/approve", request.model_dump(mode="json"))
        return Change.model_validate_json(answer.content)

    async def rollback(self, request: RollbackRequest) -> Change:
        answer = await self._call("POST", "/rollback", request.model_dump(mode="json"))
        return Change.model_validate_json(answer.content)

    async def drill_rollback(self, request: DrillRequest) -> Drill:
        answer = await self._call("POST", "/drill", request.model_dump(mode="json"))
        return Drill.model_validate_json(answer.content)

    async def restore(self, request: DecisionRequest) -> Change:
        answer = await self._call("POST", "/restore", request.model_dump(mode="json"))
        return Change.model_validate_json(answer.content)

    async def record_cycle(self, report: CycleReport) -> None:
        await self._call("POST", "/cycles", report.model_dump(mode="json"))
