"""OTLP over HTTP: `POST /v1/traces` and `POST /v1/logs`. The otlp role serves it.

A request is answered with success only after the log has acknowledged all of its records.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import structlog
from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from ratchet_client.errors import BrokerError
from streams.access.access import Access
from streams.access.guard import guard
from streams.access.tokens import AccessRole, callers
from streams.errors import RequestRefusedError, RequestTooLargeError, UnreadableRequestError
from streams.kafka.records import Outgoing
from streams.otlp.metrics import expose
from streams.otlp.settings import OtlpSettings
from streams.otlp.status import OtlpStatus
from streams.otlp.wire import Encoding, Signal, accepted, inflate, read, refused
from streams.runtime.tally import Tally

log = structlog.get_logger()

Publish = Callable[[Sequence[Outgoing]], None]

NEEDS = {"/status": AccessRole.READ, "/metrics": AccessRole.READ}
SIGNALS = "/v1"


def access_of(settings: OtlpSettings) -> Access:
    """Who may send telemetry, where the settings alone have tokens."""
    tokens = callers(settings.tokens, AccessRole.RECORD)
    return Access(settings.host, "otlp.host", configured=tokens)


def build_intake(
    settings: OtlpSettings,
    spans_topic: str,
    publish: Publish,
    tally: Tally[OtlpStatus],
    access: Access | None = None,
) -> FastAPI:
    """The HTTP application. `publish` is called in worker threads, and returns when the log has the messages.

    `GET /status` answers with an `OtlpStatus`, `GET /metrics` with the same for Prometheus. `access` is
    by default that of a home without tokens.
    """
    access = access or access_of(settings)
    app = FastAPI(title="Ratchet OTLP", docs_url=None, redoc_url=None, openapi_url=None)
    guard(app, access, NEEDS, asks_itself=SIGNALS)
    intake = _Intake(settings, spans_topic, publish, tally, access)

    @app.post("/v1/traces")
    async def traces(request: Request) -> Response:
        return await intake.take(Signal.TRACES, request)

    @app.post("/v1/logs")
    async def logs(request: Request) -> Response:
        return await intake.take(Signal.LOGS, request)

    @app.get("/status")
    async def status() -> OtlpStatus:
        return tally.status

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(expose(tally), media_type=CONTENT_TYPE_LATEST)

    return app


class _Refusal(Exception):
    """A request that is not taken, with the HTTP status that says why."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers


class _Intake:
    def __init__(
        self, settings: OtlpSettings, spans_topic: str, publish: Publish, tally: Tally[OtlpStatus], access: Access
    ) -> None:
        self._settings = settings
        self._topic = spans_topic
        self._publish = publish
        self._tally = tally
        self._access = access
        self._in_flight = 0
        # Of its own: the loop's threads must not wait for the log.
        self._threads = ThreadPoolExecutor(settings.max_in_flight, thread_name_prefix="otlp")

    async def take(self, signal: Signal, request: Request) -> Response:
        encoding = _encoding(request)
        try:
            if encoding is None:
                raise _Refusal(415, f"send {Encoding.PROTOBUF.value} or {Encoding.JSON.value}")
            principal = self._principal(request)
            if self._in_flight >= self._settings.max_in_flight:
                raise _Refusal(429, "too many requests are in flight: try again soon", self._retry_later())
            self._in_flight += 1
            try:
                body = await self._body(request)
                compression = request.headers.get("content-encoding", "").strip().lower()
                work = partial(self._work, signal, encoding, body, compression, principal)
                answer = await asyncio.get_running_loop().run_in_executor(self._threads, work)
            finally:
                self._in_flight -= 1
        except _Refusal as refusal:
            self._tally.add(OtlpStatus(refused_requests=1))
            log.warning("telemetry refused", status=refusal.status, reason=str(refusal))
            encoding = encoding or Encoding.JSON
            return Response(refused(encoding, str(refusal)), refusal.status, refusal.headers, encoding.value)
        return Response(answer, media_type=encoding.value)

    def _work(self, signal: Signal, encoding: Encoding, body: bytes, compression: str, principal: str | None) -> bytes:
        """Read the request and put it into the log; returns the answer."""
        try:
            reading = read(signal, encoding, inflate(body, compression, self._settings.max_request_bytes), principal)
        except RequestTooLargeError as error:
            raise _Refusal(413, str(error)) from error
        except UnreadableRequestError as error:
            raise _Refusal(400, str(error)) from error
        pairs = [(record.trace_id.encode(), record.to_json()) for record in reading.records]
        small = [(key, value) for key, value in pairs if len(value) <= self._settings.max_record_bytes]
        try:
            self._publish([Outgoing(self._topic, key, value) for key, value in small])
        except BrokerError as error:
            raise _Refusal(503, "the log is away: try again soon", self._retry_later()) from error
        rejected = reading.rejected + len(pairs) - len(small)
        reason = reading.reason or f"a record is larger than {self._settings.max_record_bytes} bytes"
        self._tally.add(OtlpStatus(accepted=len(small), rejected=rejected, ignored=reading.ignored))
        if rejected:
            log.warning("telemetry rejected", signal=signal.value, records=rejected, reason=reason)
        return accepted(signal, encoding, rejected, reason)

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._settings.max_request_bytes:
                raise _Refusal(413, f"the request is larger than {self._settings.max_request_bytes} bytes")
        return bytes(body)

    def _principal(self, request: Request) -> str | None:
        try:
            caller = self._access.admit(request.scope, AccessRole.RECORD)
        except RequestRefusedError as error:
            raise _Refusal(error.status, str(error), error.headers) from error
        return None if caller is None else caller.principal

    def _retry_later(self) -> dict[str, str]:
        return {"Retry-After": str(self._settings.retry_after_s)}


def _encoding(request: Request) -> Encoding | None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return next((encoding for encoding in Encoding if encoding.value == media_type), None)
