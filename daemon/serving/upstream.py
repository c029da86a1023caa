"""The connections to the inference servers: what goes in comes out as it is, byte for byte, but for the model."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Self
from urllib.request import getproxies

import aiohttp
from multidict import CIMultiDict
from opentelemetry.trace import Span, SpanKind
from yarl import URL

from daemon.serving.headers import CREDENTIALS, RawHeaders, to_client
from daemon.serving.replicas import Replica, Replicas
from daemon.serving.requests import with_model
from streams.runtime import tracing
from streams.runtime.http_client import IDLE_S

_CONNECT_S = 10.0
# Nothing was sent.
_UNSENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class UpstreamError(Exception):
    """The inference server cannot be reached, or did not finish its answer. `replica` is the server that was asked."""

    replica: Replica | None = None


class UpstreamTimeoutError(UpstreamError):
    """The inference server sent nothing for too long."""


class NoReplicaError(UpstreamError):
    """No inference server can answer; nothing was sent."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request as it is passed on.

    `served` is the gateway's name for the model that is to answer, None for a request that names no model; the `body`
    of one that does names any, and gets the server's own name for it. Those with the same `key` go to the same server
    where that is no trouble, and with `pinned` also where it is.
    """

    method: str
    path: str
    target: str
    headers: RawHeaders
    body: bytes | None
    served: str | None = None
    asks_for_stream: bool = False
    key: str | None = None
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of `replica` that has begun: its status and the headers to pass on.

    The body is read once, as a whole or in parts. Reading raises `UpstreamError` when it breaks off.
    """

    status: int
    headers: RawHeaders
    media_type: str
    encoding: str
    replica: Replica
    _response: aiohttp.ClientResponse

    async def whole(self) -> bytes:
        with _errors():
            return await self._response.read()

    async def parts(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        with _errors():
            async for part in self._response.content.iter_any():
                yield part


class Upstream:
    """A pool of connections to the `replicas`, without a limit. Use it as an asynchronous context manager.

    Agents decide how many requests they make; a pool that makes some wait would hide how busy the servers are. Where
    the servers ask for a `key`, it takes the place of the client's own.
    """

    def __init__(self, replicas: Replicas, timeout_s: float, key: str = "") -> None:
        self.replicas = replicas
        self._timeout_s = timeout_s
        self._key: RawHeaders = [(b"authorization", f"Bearer {key}".encode())] if key else []

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=min(_CONNECT_S, self._timeout_s), sock_read=self._timeout_s
            ),
            # One client's cookies are not another's.
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=bool(getproxies()),
            skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    @asynccontextmanager
    async def ask(self, question: Question, without: Sequence[Replica] = ()) -> AsyncIterator[Answer]:
        """Send a request to one of the servers but those `without`. One that takes no connection is passed over.

        Leaving before the body is read ends the request. Raises `NoReplicaError` where none can answer, and
        `UpstreamError` where one does not, or is found gone meanwhile.
        """
        failed = list(without)
        replica = None
        cut = asyncio.timeout(None)
        try:
            async with cut:
                while True:
                    replica = self.replicas.choose(question.served, question.key, failed, pinned=question.pinned)
                    if replica is None:
                        raise NoReplicaError(self.replicas.away_reason())
                    with replica.asking(cut), _span(question, replica) as span:
                        try:
                            response = await self._send(replica, question)
                        except _UNSENT as error:
                            self.replicas.unreachable(replica, f"it takes no connections: {error}")
                            failed.append(replica)
                            tracing.failed(span, type(error).__name__)
                            continue
                        span.set_attribute("http.response.status_code", response.status)
                        try:
                            yield Answer(
                                response.status,
                                to_client(response.raw_headers),
                                response.content_type,
                                response.headers.get("Content-Encoding", ""),
                                replica,
                                response,
                            )
                            return
                        finally:
                            # A response that was read to its end has given its connection back already.
                            response.close()
        except UpstreamError as error:
            error.replica = replica
            raise
        except TimeoutError as error:
            if not cut.expired():
                raise
            gone = UpstreamError("the inference server is gone")
            gone.replica = replica
            raise gone from error

    async def _send(self, replica: Replica, question: Question) -> aiohttp.ClientResponse:
        headers, body = question.headers, question.body
        if self._key:
            headers = [*((name, value) for name, value in headers if name not in CREDENTIALS), *self._key]
        if body is not None and question.served is not None:
            body = with_model(body, replica.name_there(question.served))
        context = tracing.context()
        if context:
            headers = [(name, value) for name, value in headers if name not in tracing.CONTEXT_HEADERS]
        sent = CIMultiDict((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
        sent.update(context)
        with _errors():
            return await self._session.request(
                question.method,
                URL(replica.url + question.target, encoded=True),
                headers=sent,
                data=body,
                allow_redirects=False,
            )


def _span(question: Question, replica: Replica) -> AbstractContextManager[Span]:
    """The span of one attempt at one server, until its answer is read."""
    if not tracing.is_on():
        return tracing.UNTRACED
    attributes = {
        "http.request.method": question.method,
        "server.address": replica.url,
        "ratchet.served": question.served or "",
    }
    return tracing.span("engine", SpanKind.CLIENT, attributes)


class _errors:
    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, TimeoutError):
            raise UpstreamTimeoutError(repr(error)) from error
        if isinstance(error, _UNSENT):
            return  # another server may answer
        if isinstance(error, aiohttp.ClientError | OSError):
            raise UpstreamError(repr(error)) from error
