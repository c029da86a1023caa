"""Waiting for replies and streaming them, so that a client that hangs up frees its slots. The HTTP routes call it."""

import asyncio
from collections.abc import AsyncIterator, Callable

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from daemon.inference.answers import Answer
from daemon.inference.sequence import Update
from streams.errors import RequestRefusedError
from streams.runtime.http_errors import UNEXPECTED, ErrorReply, error_reply

_CLIENT_CLOSED_REQUEST = 499  # nginx's code; the client is gone


async def finals(answer: Answer, request: Request) -> list[Update]:
    """The finished sequences; a client that hangs up frees their slots at once."""
    finished = asyncio.ensure_future(answer.finals())
    hung_up = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait((finished, hung_up), return_when=asyncio.FIRST_COMPLETED)
        if not finished.done():
            raise RequestRefusedError(
                _CLIENT_CLOSED_REQUEST, "client_closed_request", "the client closed the connection"
            )
        return finished.result()
    finally:
        answer.cancel()
        finished.cancel()
        hung_up.cancel()


def streamed(
    answer: Answer, events: AsyncIterator[str], error_event: Callable[[int, ErrorReply], str], end: str = ""
) -> StreamingResponse:
    """The events as a response, and `end` behind them. An error in between is an event too, of its status and body."""
    return StreamingResponse(_told(answer, events, error_event, end), media_type="text/event-stream")


def json_response(body: str) -> Response:
    return Response(body, media_type="application/json")


async def _told(
    answer: Answer, events: AsyncIterator[str], error_event: Callable[[int, ErrorReply], str], end: str
) -> AsyncIterator[str]:
    try:
        async for event in events:
            yield event
    # The status line has long been sent, so an error is an event.
    except RequestRefusedError as error:
        yield error_event(error.status, error_reply(error.status, str(error), error.code))
    except Exception:
        yield error_event(500, error_reply(500, UNEXPECTED))
        raise
    finally:
        answer.cancel()
    yield end


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
