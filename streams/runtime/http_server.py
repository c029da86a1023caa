"""Uvicorn as a part of a process that has its own signals. The roles that answer over HTTP use it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from ratchet_client.errors import ConfigurationError
from streams.runtime.logs import adopt_uvicorn
from streams.runtime.tls import TlsSettings, server_context

_BACKLOG = 2048
# Far longer than clients keep an idle connection (`http_client.IDLE_S`, and 5 s in most). Of a server that closes one
# first, a client may learn only after it has sent its next request.
KEEP_ALIVE_S = 75


class HttpServer(uvicorn.Server):
    """Leaves the signals to the process it runs in. Set `should_exit` to stop it.

    Raises `ConfigurationError` where what `tls` names cannot be used.
    """

    def __init__(self, config: uvicorn.Config, tls: TlsSettings = TlsSettings()) -> None:  # noqa: B008 - frozen
        config.timeout_keep_alive = KEEP_ALIVE_S
        context = server_context(tls)
        if context is not None:
            config.ssl_context_factory = lambda *_: context
        super().__init__(config)
        adopt_uvicorn()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int, what: str, variable: str) -> socket.socket:
    """A socket to serve `what` on. Raises `ConfigurationError`, which names `variable`, when it cannot be had.

    Uvicorn itself would end the process when the port is taken.
    """
    try:
        return socket.create_server((host, port), backlog=_BACKLOG)
    except OSError as error:
        raise ConfigurationError(f"{what} cannot listen on {host}:{port}: {error}; set {variable}") from error
