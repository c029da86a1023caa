"""`/healthz`, `/readyz` and `/version`, the same of every role: for supervisors, containers and load balancers.

`/healthz` says that the process answers, and asks nothing else. `/readyz` asks all that the role needs, each for a
limited time, so that it answers also while one of them hangs.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version

import httpx
import structlog
import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ratchet_client.errors import ConfigurationError
from ratchet_client.settings import FrozenModel
from streams import schema_versions
from streams.runtime.http_client import reason_of
from streams.runtime.http_server import HttpServer, listen
from streams.runtime.metrics import process_registry
from streams.runtime.tls import TlsSettings, context_for

log = structlog.get_logger()

Check = Callable[[], Awaitable[str]]
"""Returns the reason for which a component is not ready, empty where it is."""

PATIENCE_S = 2.0
_LAST_SECONDS = 1


class Readiness(FrozenModel):
    """The answer of `/readyz`: its status is 503 unless the role is ready. `reasons` are by component."""

    ready: bool
    reasons: dict[str, str]


class Version(FrozenModel):
    """The answer of `/version`: that of Ratchet, and those of the formats that it writes."""

    version: str
    schemas: dict[str, int]


class Probe:
    """One check. While it has no answer it is not asked a second time: what hangs must not be asked ever more."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._asked: asyncio.Future[str] | None = None

    async def reason(self) -> str:
        """The reason for which the component is not ready; that it did not answer is one."""
        if self._asked is None:
            self._asked = asyncio.ensure_future(self._check())
        asked = self._asked
        await asyncio.wait((asked,), timeout=PATIENCE_S)
        if not asked.done():
            return f"it did not answer within {PATIENCE_S:g} s"
        self._asked = None
        error = asked.exception()
        return asked.result() if error is None else str(error) or repr(error)


def add_health(app: FastAPI, checks: Mapping[str, Check]) -> None:
    """Give `app` the three endpoints; `checks` are by the name of the component."""
    probes = {name: Probe(check) for name, check in checks.items()}

    @app.get("/healthz")
    async def healthz() -> Response:
        return Response("ok\n", media_type="text/plain")

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        found = dict(zip(probes, await asyncio.gather(*(each.reason() for each in probes.values())), strict=True))
        reasons = {name: reason for name, reason in found.items() if reason}
        return JSONResponse(Readiness(ready=not reasons, reasons=reasons).model_dump(), 503 if reasons else 200)

    @app.get("/version")
    async def version_of_ratchet() -> Version:
        return Version(version=version("ratchetd"), schemas=schema_versions.VERSIONS)


def health_app(role: str, checks: Mapping[str, Check]) -> FastAPI:
    """The interface of a role that has no other: its health, and the metrics of its process."""
    app = FastAPI(title=f"Ratchet {role}", docs_url=None, redoc_url=None, openapi_url=None)
    add_health(app, checks)
    registry = process_registry(role)

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app


@asynccontextmanager
async def health_listener(
    role: str,
    app: FastAPI,
    host: str,
    port: int,
    tls: TlsSettings = TlsSettings(),  # noqa: B008 - frozen
) -> AsyncIterator[None]:
    """Answer with the `health_app` of a role meanwhile; on no port where it is 0.

    Where the port is taken, as by another worker of the role on this machine, the role goes on without.
    """
    variable = f"RATCHET_HEALTH__{role.upper()}_PORT"
    try:
        sockets = [listen(host, port, f"the health of the role {role}", variable)] if port else []
    except ConfigurationError as error:
        log.warning("the role answers on no port", role=role, error=str(error))
        sockets = []
    if not sockets:
        yield
        return
    server = HttpServer(
        uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=_LAST_SECONDS), tls
    )
    answering = asyncio.create_task(server.serve(sockets))
    try:
        yield
    finally:
        server.should_exit = True
        await answering


def answers(url: str) -> Check:
    """The check that `url`, another role's `/healthz` or `/readyz`, answers with success."""

    # Made once: it reads all certificates, and the event loop of the gateway would wait for that each time.
    context = context_for(url.removesuffix("/healthz").removesuffix("/readyz")) or httpx.create_ssl_context()

    async def check() -> str:
        try:
            async with httpx.AsyncClient(verify=context, timeout=2 * PATIENCE_S) as http:
                response = await http.get(url)
        except httpx.HTTPError as error:
            return f"{url} did not answer: {reason_of(error)}"
        return "" if response.is_success else f"{url} answered {response.status_code}: {response.text[:500]}"

    return check


def reachable(bootstrap: str) -> Check:
    """The check that one of these servers, HOST:PORT with commas between them, takes connections."""

    async def check() -> str:
        failures = []
        for server in bootstrap.split(","):
            host, _, port = server.strip().removeprefix("kafka://").rpartition(":")
            try:
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            except (OSError, ValueError) as error:
                failures.append(f"{server.strip()}: {error}")
                continue
            writer.close()
            return ""
        return f"no broker takes connections: {'; '.join(failures)}"

    return check
