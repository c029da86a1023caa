"""The routes of the other APIs. Anthropic's answer errors in a form of their own, as its clients read them."""

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from daemon.inference.answers import Answer, chat_answer, prompt_length
from daemon.inference.delivery import finals, json_response, streamed
from daemon.inference.engine import Engine
from daemon.inference.faces.anthropic_replies import message, message_events
from daemon.inference.faces.anthropic_requests import CountRequest, MessagesRequest
from daemon.inference.faces.events import event_text
from daemon.inference.faces.known_responses import KnownResponses
from daemon.inference.faces.responses_replies import response, response_events
from daemon.inference.faces.responses_requests import ResponsesRequest
from daemon.inference.faces.truncation import fitted
from daemon.inference.replies import chat_chunks, chat_reply
from ratchet_client.messages import Message, Messages
from streams.calls.json_values import compact
from streams.errors import RequestRefusedError
from streams.runtime.http_bodies import JsonRoute
from streams.runtime.http_errors import ErrorReply, anthropic_error, error_response, wrong_fields


def add_faces(app: FastAPI, engine: Engine) -> None:
    """Serve `POST /v1/responses`, `POST /v1/messages` and `POST /v1/messages/count_tokens` on the engine."""
    known = KnownResponses()
    anthropic = APIRouter(route_class=_AnthropicRoute)

    @app.post("/v1/responses", response_model=None)
    async def respond(body: ResponsesRequest, request: Request) -> Response:
        chat = body.as_chat(known.get)
        seen = chat.messages[1:] if body.instructions else chat.messages
        chat = fitted(engine, chat) if body.truncation == "auto" else chat
        answer = await chat_answer(engine, chat, capped=True)
        if body.stream:
            events = response_events(body, answer, chat_chunks(engine, chat, answer))
            kept = _kept(events, known if body.store else None, answer, seen)
            return streamed(answer, kept, _response_error)
        updates = await finals(answer, request)
        told, said = response(body, answer, chat_reply(engine, chat, answer, updates))
        if body.store:
            known.add(f"resp_{answer.id}", seen, said)
        return json_response(compact(told))

    @anthropic.post("/v1/messages", response_model=None)
    async def messages(body: MessagesRequest, request: Request) -> Response:
        chat = body.as_chat()
        answer = await chat_answer(engine, chat, capped=True)
        if body.stream:
            events = message_events(chat, answer, chat_chunks(engine, chat, answer))
            return streamed(answer, events, _message_error)
        updates = await finals(answer, request)
        return json_response(compact(message(chat_reply(engine, chat, answer, updates), answer)))

    @anthropic.post("/v1/messages/count_tokens")
    async def count(body: CountRequest) -> dict[str, int]:
        chat = body.as_chat()
        if all(model.name != body.model for model in engine.models()):
            raise RequestRefusedError(404, "model_not_found", f"the model {body.model!r:.100} is not loaded")
        return {"input_tokens": prompt_length(engine, chat)}

    app.include_router(anthropic)


async def _kept(
    events: AsyncIterator[str | Message], known: KnownResponses | None, answer: Answer, seen: Messages
) -> AsyncIterator[str]:
    """The events of a response, which is known before its last one is sent."""
    async for event in events:
        if isinstance(event, str):
            yield event
        elif known is not None:
            known.add(f"resp_{answer.id}", seen, event)


class _AnthropicRoute(JsonRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_refused(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestRefusedError as error:
                return _refused(error.status, str(error))
            except RequestValidationError as error:
                return _refused(400, wrong_fields(error.errors())[0])

        return handle_refused


def _refused(status: int, told: str) -> Response:
    error_response(status, told)  # for the log
    return JSONResponse(anthropic_error(status, told).model_dump(), status)


def _message_error(status: int, reply: ErrorReply) -> str:
    return event_text(anthropic_error(status, reply.error.message).model_dump())


def _response_error(_: int, reply: ErrorReply) -> str:
    error = reply.error
    return event_text(
        {"type": "error", "code": error.code, "message": error.message, "param": error.param, "sequence_number": 0}
    )
