"""A model that answers the support desk's agent with the demonstration of the ticket that it is asked about."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from examples.helpdesk.desk import Document, tasks

NAME = "base"


def receipt_of(turn: int) -> str:
    return f"receipt-{turn}.0123456789abcdef"


@dataclass(slots=True)
class HelpdeskModel:
    """Keeps the headers and bodies that it was `asked` with, and, as a gateway, the feedback that it was `told`."""

    asked: list[tuple[dict[str, str], Document]] = field(default_factory=list)
    told: list[Document] = field(default_factory=list)
    _by_opening: dict[str, Document] = field(
        default_factory=lambda: {task["opening"]: task for task in tasks().values()}
    )

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/v1/models")
        async def models() -> Document:
            return {"object": "list", "data": [{"id": NAME, "object": "model", "created": 1, "owned_by": "test"}]}

        @app.post("/v1/chat/completions")
        async def chat(request: Request) -> StreamingResponse:
            body = await request.json()
            self.asked.append((dict(request.headers), body))
            turn = sum(message["role"] == "assistant" for message in body["messages"])
            action = self._by_opening[body["messages"][1]["content"]]["demonstration"][turn]
            events = [f"data: {json.dumps(each)}\n\n" for each in _chunks(action)]
            return StreamingResponse(
                iter([*events, "data: [DONE]\n\n"]),
                headers={"x-ratchet-receipt": receipt_of(turn)},
                media_type="text/event-stream",
            )

        @app.post("/v1/feedback")
        async def feedback(request: Request) -> Document:
            self.told.append(await request.json())
            return {}

        return app


def _chunks(action: Any) -> Iterator[Document]:
    """An action as deltas, arguments in pieces."""
    yield _chunk({"role": "assistant", "content": action if isinstance(action, str) else None}, None)
    calls = [] if isinstance(action, str) else action if isinstance(action, list) else [action]
    for index, each in enumerate(calls):
        arguments = json.dumps(each["arguments"])
        function = {"name": each["name"], "arguments": arguments[:4]}
        first = {"index": index, "id": f"call_{index}", "type": "function", "function": function}
        yield _chunk({"tool_calls": [first]}, None)
        yield _chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments[4:]}}]}, None)
    yield _chunk({}, "tool_calls" if calls else "stop")


def _chunk(delta: Document, reason: str | None) -> Document:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": NAME, "choices": [choice]}
