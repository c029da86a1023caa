"""Replies of OpenAI's Responses API, whole or as events, from those of the chat completion that a response is."""

from collections.abc import AsyncIterator, Callable, Iterator

from pydantic import JsonValue

from daemon.inference.answers import Answer
from daemon.inference.faces.drawn_tokens import DrawnTokens, told_in_stream, told_whole
from daemon.inference.faces.events import event_text
from daemon.inference.faces.responses_requests import ResponsesRequest
from daemon.inference.schemas import ChatChunk, ChatReply, TokenLogprob, Usage
from ratchet_client.messages import Message, assistant, call
from streams.calls.faces import Body

_KINDS = {"reasoning": "reasoning_text", "message": "output_text"}


def response(request: ResponsesRequest, answer: Answer, reply: ChatReply) -> tuple[Body, Message]:
    """The response that a whole reply is, and the message that it says."""
    said = reply.choices[0].message
    turn = _Turn(request, answer)
    turn.tokens.add(reply.choices[0].logprobs)
    list(turn.say("reasoning", said.reasoning_content))
    list(turn.say("message", said.content))
    for each in said.tool_calls or ():
        assert each.function is not None  # the engine makes no other
        list(turn.call(each.id, each.function.name, each.function.arguments))
    list(turn.end(reply.choices[0].finish_reason))
    return turn.response(reply.usage), turn.message()


async def response_events(
    request: ResponsesRequest, answer: Answer, chunks: AsyncIterator[ChatChunk]
) -> AsyncIterator[str | Message]:
    """The events of a response, and before the last one the message that it says."""
    turn = _Turn(request, answer)
    for kind in ("response.created", "response.in_progress"):
        yield turn.event(kind, response=turn.response(None))
    usage = None
    async for chunk in chunks:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            turn.tokens.add(choice.logprobs)
            for event in turn.say("reasoning", choice.delta.reasoning_content):
                yield event
            for event in turn.say("message", choice.delta.content):
                yield event
            for each in choice.delta.tool_calls or ():
                for event in turn.call(each.id, each.function.name, each.function.arguments):
                    yield event
            if choice.finish_reason is not None:
                for event in turn.end(choice.finish_reason):
                    yield event
    yield turn.message()
    yield turn.event(f"response.{turn.status}", response=turn.response(usage))


class _Turn:
    """The items of a response under way: at most one is open. Its methods give the events of what they do."""

    def __init__(self, request: ResponsesRequest, answer: Answer) -> None:
        self.status = "in_progress"
        self.tokens = DrawnTokens()
        self._request, self._answer = request, answer
        self._items: list[JsonValue] = []
        self._open: str | None = None
        self._text = ""
        self._number = -1
        self._said: dict[str, str] = {}
        self._calls: list[tuple[str, str, str]] = []

    def event(self, kind: str, **fields: JsonValue) -> str:
        self._number += 1
        return event_text({"type": kind, "sequence_number": self._number, **fields})

    def say(self, kind: str, text: str | None) -> Iterator[str]:
        """More of the text of an item of this kind."""
        if not text:
            return
        if self._open != kind:
            yield from self._begin(kind)
        self._text += text
        self._said[kind] = self._said.get(kind, "") + text
        more: Body = {"logprobs": told_in_stream(self._of_text(self.tokens.untold))} if kind == "message" else {}
        yield self.event(f"response.{_KINDS[kind]}.delta", **self._place(), content_index=0, delta=text, **more)

    def call(self, identity: str, name: str, arguments: str) -> Iterator[str]:
        """A whole call of a tool."""
        yield from self._close()
        self._calls.append((identity, name, arguments))
        item: Body = {
            "id": self._identity("fc"),
            "type": "function_call",
            "call_id": identity,
            "name": name,
            "arguments": "",
            "status": "in_progress",
        }
        place, index = self._place("fc"), len(self._items)
        yield self.event("response.output_item.added", output_index=index, item=item)
        yield self.event("response.function_call_arguments.delta", **place, delta=arguments)
        yield self.event("response.function_call_arguments.done", **place, name=name, arguments=arguments)
        done = item | {"arguments": arguments, "status": "completed"}
        self._items.append(done)
        yield self.event("response.output_item.done", output_index=index, item=done)

    def end(self, finish_reason: str) -> Iterator[str]:
        """The end of the last item; a response that says nothing has an empty text."""
        self.status = "incomplete" if finish_reason == "length" else "completed"
        if not self._items and self._open is None:
            yield from self._begin("message")
        yield from self._close()

    def message(self) -> Message:
        """The message that was said."""
        calls = (call(name, arguments, identity) for identity, name, arguments in self._calls)
        content = self._said.get("message", None if self._calls else "")
        return assistant(content, *calls, reasoning=self._said.get("reasoning"))

    def response(self, usage: Usage | None) -> Body:
        """The response as far as it came."""
        request = self._request
        cut: Body | None = {"reason": "max_output_tokens"} if self.status == "incomplete" else None
        return {
            "id": f"resp_{self._answer.id}",
            "object": "response",
            "created_at": self._answer.created,
            "status": self.status,
            "background": False,
            "error": None,
            "incomplete_details": cut,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "metadata": request.metadata or {},
            "model": request.model,
            "output": list(self._items),
            "parallel_tool_calls": request.parallel_tool_calls,
            "previous_response_id": request.previous_response_id,
            "reasoning": {"effort": request.reasoning.effort, "summary": None},
            "service_tier": "default",
            "store": request.store,
            "temperature": request.temperature,
            "text": {"format": request.text.format or {"type": "text"}, "verbosity": "medium"},
            "tool_choice": request.tool_choice,
            "tools": list(request.tools),
            "top_logprobs": request.top_logprobs,
            "top_p": request.top_p,
            "truncation": request.truncation,
            "usage": None if usage is None else _usage(usage),
            "user": request.user,
        }

    def _begin(self, kind: str) -> Iterator[str]:
        yield from self._close()
        self._open, self._text = kind, ""
        item = self._item("in_progress", [])
        yield self.event("response.output_item.added", output_index=len(self._items), item=item)
        yield self.event("response.content_part.added", **self._place(), content_index=0, part=self._part())

    def _close(self) -> Iterator[str]:
        if self._open is None:
            return
        kind = _KINDS[self._open]
        more: Body = {"logprobs": told_in_stream(self._of_text(self.tokens.of_text))} if kind == "output_text" else {}
        yield self.event(f"response.{kind}.done", **self._place(), content_index=0, text=self._text, **more)
        yield self.event("response.content_part.done", **self._place(), content_index=0, part=self._part())
        item = self._item("incomplete" if self.status == "incomplete" else "completed", [self._part()])
        self._items.append(item)
        yield self.event("response.output_item.done", output_index=len(self._items) - 1, item=item)
        self._open = None

    def _item(self, status: str, content: list[JsonValue]) -> Body:
        if self._open == "reasoning":
            item: Body = {"id": self._identity("rs"), "type": "reasoning", "summary": [], "content": content}
            return item | {"encrypted_content": None, "status": status}
        identity = self._identity("msg")
        return {"id": identity, "type": "message", "role": "assistant", "status": status, "content": content}

    def _part(self) -> Body:
        if self._open == "reasoning":
            return {"type": "reasoning_text", "text": self._text}
        logprobs = told_whole(self._of_text(self.tokens.of_text))
        return {"type": "output_text", "text": self._text, "annotations": [], "logprobs": logprobs}

    def _of_text(self, find: Callable[[str, str], list[TokenLogprob]]) -> list[TokenLogprob]:
        return find(self._text, self._said.get("reasoning", ""))

    def _place(self, prefix: str | None = None) -> Body:
        prefix = prefix or ("rs" if self._open == "reasoning" else "msg")
        return {"item_id": self._identity(prefix), "output_index": len(self._items)}

    def _identity(self, prefix: str) -> str:
        return f"{prefix}_{self._answer.id}_{len(self._items)}"


def _usage(usage: Usage) -> Body:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.prompt_tokens_details.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }
