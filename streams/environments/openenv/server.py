"""`python -m streams.environments.openenv.server ENVIRONMENT`: serves an installed environment to OpenEnv clients.

The reference for `docs/openenv.md`: OpenEnv's WebSocket protocol with Ratchet's extension for snapshots and tasks.
"""

import argparse
import asyncio
import hmac
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Self, TypeVar

import structlog
import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from pydantic import ConfigDict, Field, SecretStr, ValidationError, model_validator

from ratchet_client.errors import ConfigurationError, RatchetError
from ratchet_client.settings import FrozenModel, Secret
from streams.environments.environment import Configured, Environment
from streams.environments.openenv.protocol import MESSAGE_BYTES, ErrorCode, ErrorData, Frame
from streams.environments.openenv.session import OpenEnvSession
from streams.environments.registry import is_configured, load_environment, open_environment
from streams.errors import ServerRefusedError
from streams.runtime.http_server import HttpServer, listen
from streams.runtime.processes import stop_on_signals

log = structlog.get_logger()

TOKEN_VARIABLE = "RATCHET_OPENENV_TOKEN"

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_POLICY_VIOLATION = 1008
_TRY_AGAIN_LATER = 1013
_PATIENCE_S = 5

T = TypeVar("T")


class ServerSettings(FrozenModel):
    """Settings from the command line, and the token from the variable `RATCHET_OPENENV_TOKEN`."""

    model_config = ConfigDict(hide_input_in_errors=True)

    environment: str = Field(description="the name under which the environment is installed")
    host: str = Field(default="127.0.0.1", description=f"address to listen on; beyond loopback set {TOKEN_VARIABLE}")
    port: int = Field(default=8000, ge=1, le=65535, description="TCP port")
    sessions: int = Field(default=8, ge=1, description="most connections at a time; each is a session of its own")
    snapshots: int = Field(default=256, ge=1, description="most snapshots that one session keeps")
    token: Secret = Field(default=SecretStr(""), exclude=True)

    @model_validator(mode="after")
    def _strangers_need_a_token(self) -> Self:
        if self.host not in _LOOPBACK and not self.token.get_secret_value():
            raise ValueError(f"{self.host} can be reached by strangers: set {TOKEN_VARIABLE}, and clients send it")
        return self


class OpenEnvServer:
    """Serves sessions of what `open_environment` opens.

    All run in one thread, one message at a time, because simulators share state that no two threads may touch.
    """

    def __init__(self, open_environment: Callable[[], Environment], settings: ServerSettings) -> None:
        self._open_environment = open_environment
        self._settings = settings
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._sessions = 0

    def app(self) -> FastAPI:
        app = FastAPI(title="OpenEnv with Ratchet's extension", docs_url=None, redoc_url=None, openapi_url=None)
        app.add_api_websocket_route("/ws", self._connected)
        app.add_api_route("/health", _health)
        return app

    async def _connected(self, websocket: WebSocket) -> None:
        if not self._may_enter(websocket):
            await websocket.close(_POLICY_VIOLATION)
            return
        await websocket.accept()
        if self._sessions >= self._settings.sessions:
            await _send(websocket, _error(ErrorCode.CAPACITY_REACHED, "the server holds as many sessions as it may"))
            await websocket.close(_TRY_AGAIN_LATER)
            return
        self._sessions += 1
        try:
            await self._converse(websocket)
        except WebSocketDisconnect:
            log.info("client gone", environment=self._settings.environment)
        finally:
            self._sessions -= 1

    def _may_enter(self, websocket: WebSocket) -> bool:
        # Only a browser says where it comes from, and then any page that somebody visits could play here.
        if "origin" in websocket.headers:
            return False
        token = self._settings.token.get_secret_value()
        given = websocket.headers.get("authorization", "")
        return not token or hmac.compare_digest(given.encode(), f"Bearer {token}".encode())

    async def _converse(self, websocket: WebSocket) -> None:
        try:
            session = await self._run(self._open)
        except RatchetError as error:
            await _send(websocket, _error(ErrorCode.FACTORY_ERROR, str(error)))
            await websocket.close()
            return
        try:
            while (message := await _receive(websocket)) is None or message.type != "close":
                if message is None:
                    await _send(websocket, _error(ErrorCode.INVALID_JSON, "a message is a JSON object with a type"))
                else:
                    await _send(websocket, await self._run(partial(_answer, session, message)))
            await websocket.close()
        finally:
            await self._run(session.close)

    def _open(self) -> OpenEnvSession:
        return OpenEnvSession(self._open_environment(), self._settings.environment, self._settings.snapshots)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _answer(session: OpenEnvSession, message: Frame) -> Frame:
    try:
        return session.answer(message)
    except ServerRefusedError as error:
        return _error(error.code, str(error))
    except RatchetError as error:
        return _error(ErrorCode.EXECUTION_ERROR, str(error))


def _error(code: str, message: str) -> Frame:
    return Frame(type="error", data=ErrorData(code=code, message=message).model_dump(mode="json", exclude={"errors"}))


async def _receive(websocket: WebSocket) -> Frame | None:
    """The next message, or None for what is none. Raises `WebSocketDisconnect` when the client is gone."""
    received = await websocket.receive()
    if received["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(received["code"])
    try:
        return Frame.model_validate_json(received.get("text") or received.get("bytes") or "")
    except ValidationError:
        return None


async def _send(websocket: WebSocket, message: Frame) -> None:
    await websocket.send_text(message.model_dump_json(exclude_none=True))


async def _health() -> dict[str, str]:
    return {"status": "healthy"}


async def serve(settings: ServerSettings) -> None:
    """Serve until a signal. Raises `ConfigurationError` when the environment is not found or the port is taken."""
    environment = load_environment(settings.environment)
    if isinstance(environment, Configured) and not is_configured(settings.environment, {}):
        raise ConfigurationError(
            f"the environment {settings.environment!r} needs settings, which this server has no place for. "
            "Serve it by a class of your own that needs none."
        )
    listening = listen(settings.host, settings.port, f"the server of {settings.environment}", "--port")
    stop = stop_on_signals()
    config = uvicorn.Config(
        OpenEnvServer(partial(open_environment, settings.environment, {}), settings).app(),
        ws_max_size=MESSAGE_BYTES,
        log_config=None,
        lifespan="off",
        timeout_graceful_shutdown=_PATIENCE_S,
    )
    server = HttpServer(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    log.info("serving", environment=settings.environment, url=f"ws://{settings.host}:{settings.port}/ws")
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await serving
    stopped.cancel()


def main() -> int:
    """The exit status: 0 after a signal, 2 for wrong usage, 1 when the server cannot start."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        asyncio.run(serve(_settings()))
    except ValidationError as error:
        first = error.errors()[0]
        print(f"{'.'.join(map(str, first['loc'])) or 'usage'}: {first['msg']}", file=sys.stderr)
        return 2
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _settings() -> ServerSettings:
    parser = argparse.ArgumentParser(
        prog="python -m streams.environments.openenv.server",
        description="Serve an installed environment over OpenEnv's WebSocket protocol, with snapshots and tasks.",
        epilog=f"Clients connect to ws://HOST:PORT/ws. With {TOKEN_VARIABLE} set they must send it as a bearer token.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    fields = ServerSettings.model_fields
    parser.add_argument("environment", help=fields["environment"].description)
    for name in ("host", "port", "sessions", "snapshots"):
        parser.add_argument(f"--{name}", default=fields[name].default, help=fields[name].description)
    return ServerSettings(**vars(parser.parse_args()), token=SecretStr(os.environ.get(TOKEN_VARIABLE, "")))


if __name__ == "__main__":
    sys.exit(main())
