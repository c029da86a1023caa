"""The way back to one client: the reply's start and its parts, and whether the client is still there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Send

from daemon.serving.call_metrics import Passage
from daemon.serving.headers import RawHeaders, find
from daemon.serving.refusals import is_anthropic
from ratchet_client.ids import uuid7

_REQUEST_ID = b"x-request-id"
# The name by which Anthropic's clients know it.
_ANTHROPIC_REQUEST_ID = b"request-id"


class Reply:
    """Sends one reply, which bears a request id: the inference server's, else the client's own, else a new one.

    `status` is None until the reply has begun; `finished` is true once its last part is on its way. `passage` has what
    is measured of the call.
    """

    def __init__(self, path: str, headers: RawHeaders, send: Send) -> None:
        self._path = path
        self._send = send
        self.request_id = find(headers, _REQUEST_ID) or uuid7()
        self.status: int | None = None
        self.finished = False
        self.passage = Passage()

    async def __call__(self, message: Message) -> None:
        """The `send` of ASGI, for a response of Starlette's."""
        if message["type"] == "http.response.start":
            message["headers"] = self._identified(list(message.get("headers", ())))
            self.status = message["status"]
        elif not message.get("more_body", False):
            self.finished = True
        await self._send(message)

    async def begin(self, status: int, headers: RawHeaders) -> None:
        await self({"type": "http.response.start", "status": status, "headers": headers})

    async def part(self, body: bytes) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, body: bytes = b"") -> None:
        await self({"type": "http.response.body", "body": body})

    async def whole(self, status: int, headers: RawHeaders, body: bytes) -> None:
        await self.begin(status, [*headers, (b"content-length", str(len(body)).encode())])
        await self.end(body)

    def _identified(self, headers: RawHeaders) -> RawHeaders:
        names = {name for name, _ in headers}
        wanted = (_REQUEST_ID, _ANTHROPIC_REQUEST_ID) if is_anthropic(self._path) else (_REQUEST_ID,)
        given = next((value for name, value in headers if name in wanted), self.request_id.encode())
        return [*headers, *((name, given) for name in wanted if name not in names)]


@asynccontextmanager
async def while_connected(receive: Receive, reply: Reply) -> AsyncIterator[None]:
    """Cancel what is done inside when the client leaves before the reply is finished; raises `ClientDisconnect` then.

    The request's body must have been read.
    """
    here = asyncio.current_task()
    assert here is not None
    left = False

    async def watch() -> None:
        nonlocal left
        while (await receive())["type"] != "http.disconnect":
            pass
        if not reply.finished:
            left = True
            here.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not left:
            raise
        here.uncancel()
        raise ClientDisconnect from None
    finally:
        watching.cancel()
