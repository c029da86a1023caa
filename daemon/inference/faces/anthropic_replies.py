"""Replies of Anthropic's Messages API, whole or as events: https://docs.anthropic.com/en/api/messages-streaming."""

import json
from collections.abc import AsyncIterator, Iterator

from pydantic import JsonValue

from daemon.inference.answers import Answer
from daemon.inference.faces.events import event_text
from daemon.inference.requests import ChatRequest
from daemon.inference.schemas import ChatChunk, ChatReply, Usage
from streams.calls.faces import Body
from streams.calls.json_values import mapping

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
# Of what a block begins with, and the delta that adds to it.
_EMPTY: dict[str, Body] = {
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
    "text": {"type": "text", "text": ""},
}


def message(reply: ChatReply, answer: Answer) -> Body:
    """The message that a whole reply is."""
    choice = reply.choices[0]
    said = choice.message
    content: list[JsonValue] = []
    if said.reasoning_content:
        content.append({**_EMPTY["thinking"], "thinking": said.reasoning_content})
    if said.content:
        content.append({"type": "text", "text": said.content})
    for call in said.tool_calls or ():
        assert call.function is not None  # the engine makes no other
        content.append(_tool_use(call.id, call.function.name, mapping(json.loads(call.function.arguments))))
    return {
        **_begun(reply.model, answer),
        "content": content,
        "stop_reason": _stop_reason(choice.finish_reason, choice.stop),
        "stop_sequence": choice.stop,
        "usage": _usage(reply.usage),
    }


async def message_events(request: ChatRequest, answer: Answer, chunks: AsyncIterator[ChatChunk]) -> AsyncIterator[str]:
    """The events of a message, from the chunks of the chat completion that it is."""
    prompt = len(answer.sequences[0].prompt)
    begun = {**_begun(request.model, answer), "content": [], "stop_reason": None, "stop_sequence": None}
    begun["usage"] = _counts(prompt, 0)
    yield event_text({"type": "message_start", "message": begun})
    blocks = _Blocks()
    end: Body = {"stop_reason": None, "stop_sequence": None}
    usage = _counts(prompt, 0)
    async for chunk in chunks:
        if chunk.usage is not None:
            usage = _usage(chunk.usage)
        for choice in chunk.choices:
            delta = choice.delta
            for event in blocks.say("thinking", "thinking_delta", delta.reasoning_content):
                yield event
            for event in blocks.say("text", "text_delta", delta.content):
                yield event
            for call in delta.tool_calls or ():
                for event in blocks.call(call.id, call.function.name, call.function.arguments):
                    yield event
            if choice.finish_reason is not None:
                reason = _stop_reason(choice.finish_reason, choice.stop)
                end = {"stop_reason": reason, "stop_sequence": choice.stop}
    for event in blocks.end():
        yield event
    yield event_text({"type": "message_delta", "delta": end, "usage": usage})
    yield event_text({"type": "message_stop"})


class _Blocks:
    """The blocks of a message under way: at most one is open."""

    def __init__(self) -> None:
        self._index = -1
        self._open: str | None = None

    def say(self, kind: str, delta: str, text: str | None) -> Iterator[str]:
        """The events for more text of a kind."""
        if not text:
            return
        if self._open != kind:
            yield from self._begin(kind, _EMPTY[kind])
        yield event_text({"type": "content_block_delta", "index": self._index, "delta": {"type": delta, kind: text}})

    def call(self, identity: str, name: str, arguments: str) -> Iterator[str]:
        """The events for a whole call of a tool."""
        yield from self._begin("tool_use", _tool_use(identity, name, {}))
        delta: Body = {"type": "input_json_delta", "partial_json": arguments}
        yield event_text({"type": "content_block_delta", "index": self._index, "delta": delta})
        yield from self.end()

    def end(self) -> Iterator[str]:
        """The event that closes the open block, if one is."""
        if self._open is not None:
            yield event_text({"type": "content_block_stop", "index": self._index})
        self._open = None

    def _begin(self, kind: str, block: Body) -> Iterator[str]:
        yield from self.end()
        self._open = kind
        self._index += 1
        yield event_text({"type": "content_block_start", "index": self._index, "content_block": block})


def _begun(model: str, answer: Answer) -> Body:
    return {"id": f"msg_{answer.id}", "type": "message", "role": "assistant", "model": model}


def _tool_use(identity: str, name: str, value: Body) -> Body:
    return {"type": "tool_use", "id": identity, "name": name, "input": value}


def _stop_reason(finish_reason: str, stop: str | None) -> str:
    return "stop_sequence" if stop is not None else _STOP_REASONS.get(finish_reason, finish_reason)


def _usage(usage: Usage) -> Body:
    return _counts(usage.prompt_tokens, usage.completion_tokens)


def _counts(prompt: int, drawn: int) -> Body:
    """All of the prompt is counted as input: Anthropic's caches are asked for, and paid, by the block."""
    return {
        "input_tokens": prompt,
        "output_tokens": drawn,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    }
