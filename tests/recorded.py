"""An ASGI application with a record of the calls that it answered, as the gateway captures them."""

import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streams.calls.records import CapturedCall, Face

PATHS = {face.value: face for face in Face}


class Recorded:
    """Passes requests on to `app`. `calls` are those of the faces that were answered, in the order they ended."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.calls: list[CapturedCall] = []
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        face = PATHS.get(scope.get("path", ""))
        if scope["type"] != "http" or face is None:
            await self._app(scope, receive, send)
            return
        request, reply, told = bytearray(), bytearray(), dict[str, Any]()
        began = time.time_ns()

        async def received() -> Message:
            message = await receive()
            request.extend(message.get("body", b""))
            return message

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                told.update(
                    status=message["status"],
                    streamed=b"event-stream" in dict(message["headers"]).get(b"content-type", b""),
                )
            reply.extend(message.get("body", b""))
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)
            if complete:
                self.calls.append(
                    CapturedCall(
                        receipt=f"{len(self.calls)}.0123456789abcdef",
                        face=face,
                        served="base",
                        began_ns=began,
                        ended_ns=time.time_ns(),
                        request=request.decode(),
                        reply=reply.decode(),
                        **told,
                    )
                )
            await send(message)

        self.under_way += 1
        try:
            await self._app(scope, received, sent)
        finally:
            self.under_way -= 1
