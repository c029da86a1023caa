"""One session at an OpenEnv server: a WebSocket on which one message at a time is asked and answered."""

import socket
from contextlib import suppress

from pydantic import JsonValue, ValidationError
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from streams.environments.openenv.protocol import DataT, ErrorCode, ErrorData, Frame
from streams.environments.openenv.settings import OpenEnvSettings
from streams.errors import SandboxError, ServerRefusedError

_CLOSE_TIMEOUT_S = 2.0
_TOO_BIG = 1009


class Connection:
    """Raises `SandboxError` when the server cannot be reached, is silent, refuses, or says what cannot be read.

    OpenEnv's answers bear no number, so that after a missing one the later ones would be taken for it: the connection
    is then closed, and raises permanently.
    """

    def __init__(self, settings: OpenEnvSettings) -> None:
        self._settings = settings
        self._url = str(settings.url)
        self._lost = ""
        self._socket = self._open()

    def _open(self) -> ClientConnection:
        token = self._settings.token.get_secret_value()
        try:
            return connect(
                self._url,
                # On a socket of our own no redirect and no proxy leads to a server that the operator did not name.
                sock=self._dial(),
                open_timeout=self._settings.connect_timeout_s,
                close_timeout=_CLOSE_TIMEOUT_S,
                max_size=self._settings.message_bytes,
                compression=None,
                ping_interval=None,
                additional_headers={"Authorization": f"Bearer {token}"} if token else None,
            )
        except InvalidStatus as error:
            status = error.response.status_code
            raise SandboxError(
                f"the server at {self._url} refused a WebSocket with HTTP status {status}. "
                "Correct the settings' url (OpenEnv's path is /ws) or token."
            ) from error
        except (OSError, WebSocketException, ValueError) as error:
            raise SandboxError(
                f"no OpenEnv server answers at {self._url}: {error}. Start it, or correct the settings' url."
            ) from error

    def _dial(self) -> socket.socket:
        url = self._settings.url
        address = ((url.host or "").strip("[]"), url.port or 0)
        dialled = socket.create_connection(address, timeout=self._settings.connect_timeout_s)
        dialled.settimeout(None)
        return dialled

    def ask(
        self,
        kind: str,
        answer: type[DataT],
        data: dict[str, JsonValue] | None = None,
        *,
        answered_by: str = "",
    ) -> DataT:
        """The data of the answer, which must be of the type `answered_by`, or else of `kind` itself.

        Raises `ServerRefusedError` when the server answers with an error.
        """
        message = self._exchange(Frame(type=kind, data=data).model_dump_json(exclude_none=True))
        try:
            if message.type == "error":
                raise _refusal(kind, ErrorData.model_validate(message.data or {}))
            if message.type != (answered_by or kind):
                raise SandboxError(f"the server at {self._url} answered {kind} with {message.type[:50]!r}")
            return answer.model_validate(message.data or {})
        except ValidationError as error:
            raise SandboxError(f"the server at {self._url} answered {kind} with what is none: {error}") from error

    def _exchange(self, message: str) -> Frame:
        if self._lost:
            raise SandboxError(self._lost)
        if len(message.encode()) > self._settings.message_bytes:
            raise SandboxError(
                "a message to the OpenEnv server is longer than the settings' message_bytes and was not sent. "
                "Raise it, if the server takes such messages."
            )
        try:
            self._send(message)
            return Frame.model_validate_json(self._socket.recv(self._settings.answer_timeout_s))
        except TimeoutError:
            reason = f"it did not answer within {self._settings.answer_timeout_s:g} s"
        except ConnectionClosed as error:
            reason = _why_closed(error)
        except ValidationError as error:
            reason = f"it does not speak OpenEnv's protocol: {error}"
        self.close()
        self._lost = f"the session at {self._url} is lost: {reason}. Open a new session."
        raise SandboxError(self._lost)

    def _send(self, message: str) -> None:
        # A server that is full says so and closes at once, and what it said can still be read.
        with suppress(ConnectionClosed):
            self._socket.send(message)

    def close(self) -> None:
        """End the session. It does not matter whether the server still hears it."""
        self._lost = self._lost or f"the session at {self._url} is closed. Open a new session."
        self._send(Frame(type="close").model_dump_json(exclude_none=True))
        self._socket.close()


def _refusal(kind: str, error: ErrorData) -> ServerRefusedError:
    details = "; ".join(f"{'.'.join(map(str, detail.loc))}: {detail.msg}" for detail in error.errors)
    said = ": ".join(part for part in (error.message.rstrip("."), details) if part)
    if error.code == ErrorCode.CAPACITY_REACHED:
        said += ". Let the server hold more sessions (max_concurrent_envs of create_app), or run fewer sandboxes"
    return ServerRefusedError(error.code, f"the OpenEnv server refused {kind}: {said} ({error.code or 'no code'})")


def _why_closed(error: ConnectionClosed) -> str:
    if error.sent is not None and error.sent.code == _TOO_BIG and not error.rcvd_then_sent:
        return "it sent a message longer than the settings' message_bytes"
    return f"it closed the connection ({error})"
