"""The base of the asynchronous HTTP clients of Ratchet's servers: one pool of connections, and one way to fail."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, ClassVar, Self

import httpx

from ratchet_client.error_body import error_message
from ratchet_client.errors import RatchetError
from streams.runtime.tls import context_for

# Seconds that an idle connection is kept: fewer than the 5 after which vLLM closes it, so that it is not the server who
# closes it while a request is on its way.
IDLE_S = 2.5


class HttpClient:
    """A client of the server at `base_url`. Use it as a context manager, or call `close`.

    `token` is sent as a bearer token, where there is one; `transport` carries the requests, by default the network.
    Every method raises the subclass's `error` when the server cannot be reached or refuses; nothing is retried.
    `server` is its name in the text of errors, and `remedy` what to do when it does not answer; `key_remedy` what to do
    when it wants another token. `headers` go with every request.
    """

    server: ClassVar[str]
    remedy: ClassVar[str]
    key_remedy: str = ""
    error: ClassVar[type[RatchetError]]
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self, base_url: str, timeout_s: float, token: str = "", transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.base_url = base_url
        headers = dict(self.headers) | ({"authorization": f"Bearer {token}"} if token else {})
        # One batch of an evaluation is hundreds of requests at once, so the pool must not be the bottleneck.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=IDLE_S)
        self._http = httpx.AsyncClient(
            base_url=base_url,
            timeout=timeout_s,
            limits=limits,
            headers=headers,
            verify=context_for(base_url) or True,
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def _call(self, method: str, path: str, body: Any = None, timeout_s: float | None = None) -> httpx.Response:
        """The server's answer to a request with the JSON `body`, if its status is not an error.

        `timeout_s` takes the place of the client's own.
        """
        response = await self._send(method, path, body, timeout_s)
        if response.is_error:
            raise self.refusal(path, response)
        return response

    async def _send(self, method: str, path: str, body: Any = None, timeout_s: float | None = None) -> httpx.Response:
        """The server's answer, whatever its status is."""
        timeout = httpx.USE_CLIENT_DEFAULT if timeout_s is None else timeout_s
        try:
            return await self._http.request(method, path, json=body, timeout=timeout)
        except httpx.HTTPError as error:
            raise self.error(
                f"{self.server} at {self.base_url} did not answer {path}: {reason_of(error)}; {self.remedy}"
            ) from error

    def refusal(self, path: str, response: httpx.Response) -> RatchetError:
        """The error that an answer which was read whole stands for."""
        status, reason = response.status_code, error_message(response.content)
        remedy = f"; {self.key_remedy}" if status == httpx.codes.UNAUTHORIZED and self.key_remedy else ""
        kind = self.error_of(response.content)
        error = kind(f"{self.server} at {self.base_url} refused {path} with {status}: {reason}{remedy}")
        error.refused = True
        return error

    def error_of(self, body: bytes) -> type[RatchetError]:
        """The kind of error that the server means by `body`, where the subclass tells several apart."""
        return self.error


def reason_of(error: httpx.HTTPError) -> str:
    """What went wrong, in words.

    >>> reason_of(httpx.ReadTimeout("")), reason_of(httpx.ConnectError("All connection attempts failed"))
    ('no answer in time', 'All connection attempts failed')
    """
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return str(error) or type(error).__name__


def found_nobody(error: BaseException) -> bool:
    """Return whether an error of a client means that nothing took the connection, so that nothing was sent."""
    return isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout)


def found_silence(error: BaseException) -> bool:
    """Return whether an error of a client means that the server took the connection and did not answer in time."""
    cause = error.__cause__
    return isinstance(cause, httpx.TimeoutException) and not isinstance(cause, httpx.ConnectTimeout)
