"""A model server that calls tools and keeps what it saw and said: two calls at once, one, an answer, another answer."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

from ratchet_client.messages import Message, Messages, Tools, assistant, call, tool_result

NAME = "stub-1"
SCRIPT: Messages = (
    assistant("I look.", call("weather", '{"city": "Rome"}', "call_a"), call("weather", '{"city":"Oslo"}', "call_b")),
    assistant(None, call("book", '{"nights": 2, "city": "Rome"}', "call_c")),
    assistant("Rome it is."),
    assistant("The Borghese."),
)
_USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
_RESPONSES_USAGE = {
    **{"input_tokens": 1, "output_tokens": 1, "total_tokens": 2},
    **{"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}},
}


@dataclass(frozen=True, slots=True)
class Exchange:
    """One call of the model: the messages and tools that it was given, and its reply."""

    messages: Messages
    tools: Tools
    reply: Message


@dataclass(frozen=True, slots=True)
class ToolModel:
    """The server's app, and the exchanges that it had."""

    exchanges: list[Exchange] = field(default_factory=list)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/v1/chat/completions")
        async def chat_completions(request: Request) -> Response:
            body = await request.json()
            messages = tuple(Message.model_validate(message) for message in body["messages"])
            reply = self._reply(messages, body.get("tools") or ())
            if body.get("stream"):
                return _events([*(json.dumps(chunk) for chunk in _chunks(reply)), "[DONE]"])
            message = {"content": None, **reply.model_dump(exclude_none=True)}
            choice = {"index": 0, "message": message, "finish_reason": _finish_reason(reply)}
            told = {"id": "x", "object": "chat.completion", "created": 1, "model": NAME, "usage": _USAGE}
            return Response(json.dumps(told | {"choices": [choice]}), media_type="application/json")

        @app.post("/v1/responses")
        async def responses(request: Request) -> Response:
            body = await request.json()
            instructions = Message(role="system", content=body["instructions"])
            messages = (instructions, *_from_items(body["input"]))
            reply = self._reply(messages, [_nested(tool) for tool in body.get("tools") or ()])
            response = _response(reply, body)
            if body.get("stream"):
                return _events([json.dumps(event) for event in _response_events(response)])
            return Response(json.dumps(response), media_type="application/json")

        return app

    def _reply(self, messages: Messages, tools: Any) -> Message:
        reply = SCRIPT[sum(message.role == "assistant" for message in messages)]
        self.exchanges.append(Exchange(messages, tuple(tools), reply))
        return reply


def _finish_reason(reply: Message) -> str:
    return "tool_calls" if reply.calls else "stop"


def _events(lines: list[str]) -> Response:
    return StreamingResponse((f"data: {line}\n\n" for line in lines), media_type="text/event-stream")


def _chunks(reply: Message) -> Iterator[dict[str, Any]]:
    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": NAME, "choices": [choice]}

    yield chunk({"role": "assistant", "content": ""})
    yield from (chunk({"content": piece}) for piece in _pieces(reply.text))
    for index, made in enumerate(reply.calls):
        assert made.function is not None
        function = {"name": made.function.name, "arguments": ""}
        yield chunk({"tool_calls": [{"index": index, "id": made.id, "type": "function", "function": function}]})
        for piece in _pieces(made.function.arguments):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield chunk({}, _finish_reason(reply))
    yield chunk({}) | {"choices": [], "usage": _USAGE}


def _pieces(text: str) -> list[str]:
    return [text[start : start + 5] for start in range(0, len(text), 5)]


def _response(reply: Message, body: dict[str, Any]) -> dict[str, Any]:
    # Models that think give an item for it even where they keep what they thought.
    output: list[dict[str, Any]] = [{"type": "reasoning", "id": "rs", "summary": []}] if reply.calls else []
    if reply.text:
        content = [{"type": "output_text", "text": reply.text, "annotations": []}]
        output.append({"type": "message", "id": "msg", "role": "assistant", "status": "completed", "content": content})
    for made in reply.calls:
        assert made.function is not None
        item = {"type": "function_call", "id": f"fc_{made.id}", "call_id": made.id, "status": "completed"}
        output.append(item | made.function.model_dump())
    return {
        **{"id": "r", "object": "response", "created_at": 1, "model": NAME, "status": "completed", "output": output},
        **{"tools": body.get("tools", []), "tool_choice": "auto", "parallel_tool_calls": True},
        **{"instructions": body["instructions"], "usage": _RESPONSES_USAGE},
    }


def _response_events(response: dict[str, Any]) -> Iterator[dict[str, Any]]:
    created = response | {"output": [], "status": "in_progress"}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": created}]
    for index, item in enumerate(response["output"]):
        events += [
            {"type": f"response.output_item.{done}", "output_index": index, "item": item} for done in ("added", "done")
        ]
    events.append({"type": "response.completed", "response": response})
    return (event | {"sequence_number": number} for number, event in enumerate(events))


def _from_items(items: list[dict[str, Any]]) -> Iterator[Message]:
    """The messages of a request: what a model said in one turn is one."""
    said: dict[str, Any] = {}
    for item in [*items, {"type": "end"}]:
        kind = item.get("type", "message")
        if kind == "reasoning":
            continue
        if kind == "function_call":
            made = call(item["name"], item["arguments"], item["call_id"])
            said["tool_calls"] = [*said.get("tool_calls", ()), made]
        elif item.get("role") == "assistant":
            said["content"] = "".join(part["text"] for part in item["content"])
        else:
            if said:
                yield Message.model_validate({"role": "assistant", **said})
                said = {}
            if kind == "function_call_output":
                yield tool_result(item["output"], item["call_id"])
            elif kind == "message":
                yield Message.model_validate({"role": item["role"], "content": item["content"]})


def _nested(tool: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}
