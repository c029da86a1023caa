"""The connection to the inference server: what goes in comes out as it is, byte for byte."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self
from urllib.request import getproxies

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from daemon.serving.headers import RawHeaders, to_client
from streams.runtime.http_client import IDLE_S

_CONNECT_S = 10.0


class UpstreamError(Exception):
    """The inference server cannot be reached, or did not finish its answer."""


class UpstreamTimeoutError(UpstreamError):
    """The inference server sent nothing for too long."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that has begun: its status and the headers to pass on. The body is read once, as a whole or in parts.

    Reading raises `UpstreamError` when it breaks off.
    """

    status: int
    headers: RawHeaders
    media_type: str
    encoding: str
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
    """A pool of connections to the server at `base_url`, without a limit. Use it as an asynchronous context manager.

    Agents decide how many requests they make; a pool that makes some wait would hide how busy the server is.
    """

    def __init__(self, base_url: str, timeout_s: float) -> None:
        self._base = base_url
        self._timeout_s = timeout_s

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
    async def ask(self, method: str, target: str, headers: RawHeaders, body: bytes | None) -> AsyncIterator[Answer]:
        """Send a request; `target` is the path and the query as they came, percent-encoded.

        Leaving before the body is read ends the request. Raises `UpstreamError`.
        """
        sent = CIMultiDict((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
        with _errors():
            response = await self._session.request(
                method, URL(self._base + target, encoded=True), headers=sent, data=body, allow_redirects=False
            )
        try:
            yield Answer(
                response.status,
                to_client(response.raw_headers),
                response.content_type,
                response.headers.get("Content-Encoding", ""),
                response,
            )
        finally:
            # A response that was read to its end has given its connection back already.
            response.close()


class _errors:
    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, TimeoutError):
            raise UpstreamTimeoutError(repr(error)) from error
        if isinstance(error, aiohttp.ClientError | OSError):
            raise UpstreamError(repr(error)) from error
