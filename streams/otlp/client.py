"""The client of the OTLP intake's status."""

from streams.errors import IntakeError
from streams.otlp.tally import OtlpStatus
from streams.runtime.http_client import HttpClient


class OtlpClient(HttpClient):
    """An asynchronous client of the otlp role."""

    server = "the OTLP intake"
    remedy = "is the otlp role running?"
    error = IntakeError

    def __init__(self, base_url: str, timeout_s: float = 2.0) -> None:
        super().__init__(base_url, timeout_s)

    async def status(self) -> OtlpStatus:
        """Raises `IntakeError` when the intake does not answer."""
        return OtlpStatus.model_validate_json((await self._call("GET", "/status")).content)
