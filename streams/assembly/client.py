"""The client of the assemble role's status."""

from streams.access.tokens import own_token
from streams.assembly.status import AssemblyStatus
from streams.errors import IntakeError
from streams.runtime.http_client import HttpClient


class AssemblyClient(HttpClient):
    """An asynchronous client of the assemble role."""

    server = "the assembler"
    remedy = "is the assemble role running?"
    error = IntakeError

    def __init__(self, base_url: str, timeout_s: float = 2.0) -> None:
        super().__init__(base_url, timeout_s, own_token("assemble"))

    async def status(self) -> AssemblyStatus:
        """Raises `IntakeError` when the assembler does not answer."""
        answer = await self._call("GET", "/status")
        # A newer role's may have more.
        return AssemblyStatus.model_validate_json(answer.content, extra="ignore")
