"""`/v1/chat/completions`: messages are in the form already, replies are choices, whole or in chunks.

Servers differ in their chunks: indices and ids of calls are left out or repeated, names come whole or in pieces.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from pydantic import JsonValue

from ratchet_client.messages import Message, Messages, ToolCall, Tools
from streams.calls.absence import Absence
from streams.calls.faces.bodies import Body, Stream, refuse
from streams.calls.faces.messages import ended, message_of, reply_message, tools_of
from streams.calls.json_values import compact, mapping

_TEXTS = ("content", "refusal", "reasoning_content", "reasoning")
# What a reply says beside texts and calls.
_MEDIA = ("audio", "images")


def seen(request: Body) -> Messages:
    """The messages of a request."""
    listed = request.get("messages")
    if not isinstance(listed, list) or not listed:
        refuse(Absence.NOT_UNDERSTOOD, "the request has no messages")
    return tuple(_message(item, f"message {index} of the request") for index, item in enumerate(listed))


def offered(request: Body) -> Tools:
    """The tools of a request. Before tools there were functions."""
    functions = request.get("functions")
    if isinstance(functions, list) and not request.get("tools"):
        return tools_of([{"type": "function", "function": each} for each in functions])
    return tools_of(request.get("tools"))


def replies(request: Body, reply: Body | Stream) -> Iterator[Message]:
    """The replies of the choices in order. Raises `AbsentContentError` if one of them is not whole.

    Without the mark of its end a stream has to hold as many choices as were asked for.
    """
    choices = choices_of(reply)
    for index in sorted(choices):
        yield ended(choices[index].message(), choices[index].finish_reason)
    expect(request, reply, len(choices))


def expect(request: Body, reply: Body | Stream, choices: int, prompts: int = 1) -> None:
    """Refuse a reply in which choices are missing: all, or some of a stream that ended early."""
    wanted = prompts * (count if isinstance(count := request.get("n"), int) else 1)
    if not choices or (isinstance(reply, Stream) and not reply.done and choices < wanted):
        refuse(Absence.INCOMPLETE, f"the reply has {choices} of {wanted} choices")


@dataclass(slots=True)
class Choice:
    """A choice as far as it came."""

    texts: dict[str, str] = field(default_factory=dict)
    parts: list[JsonValue] = field(default_factory=list)
    calls: list[Body] = field(default_factory=list)
    media: Body = field(default_factory=dict)
    finish_reason: JsonValue = None
    _places: dict[int | str, int] = field(default_factory=dict)

    def add(self, delta: Body) -> None:
        """Take in a delta; a message is one that holds everything."""
        for name in _TEXTS:
            if isinstance(text := delta.get(name), str):
                self.texts[name] = self.texts.get(name, "") + text
        if isinstance(parts := delta.get("content"), list):
            self.parts += parts
        for name in _MEDIA:
            if (value := delta.get(name)) is not None:
                self.media[name] = _grown(self.media.get(name), value)
        if function := mapping(delta.get("function_call")):
            self._add_call({"index": 0, "function": function})
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            self._add_call(mapping(call))

    def _add_call(self, told: Body) -> None:
        call = self._call_of(told)
        for name in ("id", "type"):
            if isinstance(value := told.get(name), str) and value:
                call[name] = value
        for body in ("function", "custom"):
            inner = mapping(told.get(body))
            if not inner:
                continue
            grown = mapping(call.setdefault(body, {}))
            for key in ("name", "arguments", "input"):
                value = inner.get(key)
                if isinstance(value, dict | list):
                    value = compact(value)
                if isinstance(value, str) and not (key == "name" and value == grown.get("name")):
                    before = grown.get(key)
                    grown[key] = (before if isinstance(before, str) else "") + value

    def _call_of(self, told: Body) -> Body:
        """The call that a part of one belongs to: by its index, unless its id is another's; else by its id."""
        index = value if isinstance(value := told.get("index"), int | str) else None
        identity = told.get("id") or None
        named = bool(mapping(told.get("function")).get("name") or mapping(told.get("custom")).get("name"))
        place = None
        if index is not None:
            place = self._places.get(index)
            if place is not None and named and identity not in (None, self.calls[place].get("id")):
                place = next((at for at, call in enumerate(self.calls) if call.get("id") == identity), None)
        elif identity is not None:
            place = next((at for at, call in enumerate(self.calls) if call.get("id") == identity), None)
        elif not named and self.calls:
            place = len(self.calls) - 1
        if place is None:
            place = len(self.calls)
            self.calls.append({})
        if index is not None:
            self._places[index] = place
        return self.calls[place]

    def message(self) -> Message:
        """The message that the choice is. Raises `AbsentContentError`."""
        texts = self.texts
        told = reply_message(
            texts.get("content"),
            [],
            texts.get("reasoning_content") or texts.get("reasoning"),
            texts.get("refusal"),
            **self.media,
        )
        if self.parts:
            told["content"] = [
                *([{"type": "text", "text": text}] if (text := texts.get("content")) else []),
                *self.parts,
            ]
        told["tool_calls"] = [_call(call) for call in self.calls] or None
        if self.calls and not told["content"]:
            told["content"] = None
        return message_of(told, "the reply")


def choices_of(reply: Body | Stream) -> dict[int, Choice]:
    """The choices of a reply by their index."""
    found: dict[int, Choice] = {}
    for body in [event for _, event in reply.events] if isinstance(reply, Stream) else [reply]:
        listed = body.get("choices")
        for place, item in enumerate(listed if isinstance(listed, list) else []):
            told = mapping(item)
            index = value if isinstance(value := told.get("index"), int) else place
            choice = found.setdefault(index, Choice())
            choice.add(mapping(told.get("delta")) or mapping(told.get("message")) or {"content": told.get("text")})
            choice.finish_reason = told.get("finish_reason") or choice.finish_reason
    return found


def _call(told: Body) -> ToolCall:
    custom = mapping(told.get("custom"))
    if custom.get("name"):
        return ToolCall.model_validate({"id": told.get("id"), "type": "custom", "custom": {"input": "", **custom}})
    function = mapping(told.get("function"))
    if not function.get("name"):
        refuse(Absence.INCOMPLETE, "a call of a tool in the reply has no name")
    return ToolCall.model_validate({"id": told.get("id"), "function": function})


def _message(value: JsonValue, where: str) -> Message:
    """A message of a request as it came, but for older and other spellings of the same."""
    if not isinstance(value, dict):
        refuse(Absence.NOT_UNDERSTOOD, f"{where} is not an object")
    told = {key: each for key, each in value.items() if each is not None}
    if told.get("role") == "function":
        told["role"] = "tool"
    if told.get("role") == "assistant":
        if "reasoning" in told:
            reasoning = told.pop("reasoning")
            told.setdefault("reasoning_content", reasoning)
        if "function_call" in told and not told.get("tool_calls"):
            told["tool_calls"] = [{"function": told.pop("function_call")}]
    empty = ("tool_calls", "reasoning_content", "reasoning", "function_call", "annotations")
    return message_of({key: each for key, each in told.items() if each or key not in empty}, where)


def _grown(before: JsonValue, more: JsonValue) -> JsonValue:
    """A value of a reply with what a further chunk adds to it."""
    if isinstance(before, str) and isinstance(more, str):
        return before + more
    if isinstance(before, list) and isinstance(more, list):
        return before + more
    if isinstance(before, dict) and isinstance(more, dict):
        return before | {key: _grown(before.get(key), value) for key, value in more.items()}
    return more
