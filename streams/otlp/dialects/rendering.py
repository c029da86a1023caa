"""Messages of any dialect as `Message`s, whose content is text: the same message gives the same text in every dialect.

Text stays as it is. A tool call becomes `<tool_call>{"arguments":{…},"name":"…"}</tool_call>` without its id, a tool's
answer a message of its own with its text or compact JSON, reasoning the `reasoning_content`, and any other part
`[its type]`. Parts are joined by newlines. A message of which anything is hidden cannot be read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from pydantic import JsonValue

from streams.events import Message
from streams.otlp.dialects.parts import (
    HIDDEN,
    Kind,
    Part,
    call_part,
    decoded,
    part_of,
    parts_of,
    reasoning_part,
    text_part,
)
from streams.otlp.records import Attributes

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "thinking": "assistant",
    "reasoning": "assistant",
    "tool": "tool",
    "function": "tool",
}
# Items of OpenAI's Responses API stand beside messages where other APIs have parts within them.
_ITEM_ROLES = {
    "function_call": "assistant",
    "custom_tool_call": "assistant",
    "reasoning": "assistant",
    "function_call_output": "tool",
    "custom_tool_call_output": "tool",
}
_CALL = "<tool_call>"


def messages_of(role: JsonValue, parts: Sequence[Part]) -> tuple[Message, ...] | None:
    """The message; with answers of tools in it, one message for each of them and one for what is between them.

    None for a role that no chat has, and where something is hidden: a part, or everything. A tool may answer nothing.
    """
    known = _ROLES.get(role) if isinstance(role, str) else None
    if known is None:
        return None
    if role in ("thinking", "reasoning"):
        parts = [replace(part, kind=Kind.REASONING) if part.kind is Kind.CONTENT else part for part in parts]
    if not parts:
        parts = [Part("")] if known == "tool" else [HIDDEN]
    if any(part.text is None and part.kind is not Kind.REASONING for part in parts):
        return None
    found: list[Message] = []
    run: list[Part] = []
    for part in parts:
        if part.kind is Kind.ANSWER and known != "assistant":
            found += _message(known, run)
            found.append(Message(role="tool", content=part.text or ""))
            run = []
        else:
            run.append(part)
    return (*found, *_message(known, run))


def structured(value: Mapping[str, JsonValue], role: JsonValue = None) -> tuple[Message, ...] | None:
    """A message as the OpenTelemetry conventions or an API structures it; its own role goes before `role`.

    An item of OpenAI's Responses API is a message as well.
    """
    kind = value.get("type")
    if isinstance(kind, str) and kind in _ITEM_ROLES and "role" not in value:
        return messages_of(_ITEM_ROLES[kind], [part_of(dict(value))])
    parts = [reasoning_part(found) for name in ("reasoning_content", "reasoning") if (found := value.get(name))][:1]
    calls, content = value.get("tool_calls") or value.get("function_call"), value.get("content")
    calls = calls if isinstance(calls, list) else [calls] if calls else []
    parts += parts_of(value.get("parts")) + ([] if content == [] and calls else parts_of(content))
    if content is None and isinstance(refusal := value.get("refusal"), str):
        parts.append(text_part(refusal))
    # Some instrumentations write the calls of content blocks a second time.
    if not any(part.kind is Kind.CALL for part in parts):
        parts += [_openai_call(call) for call in calls]
    return messages_of(role_of(value.get("role") or role, value.get("channel")), parts)


def role_of(role: JsonValue, channel: JsonValue) -> JsonValue:
    """The role of a message. Models of the harmony format reason in a message of its own, in the channel `analysis`."""
    replies = isinstance(role, str) and _ROLES.get(role) == "assistant"
    return "reasoning" if replies and channel == "analysis" else role


def chat_of(value: JsonValue) -> tuple[Message, ...] | None:
    """A list of structured messages, or its JSON; None unless every one of them can be read."""
    items = decoded(value)
    if not isinstance(items, list):
        return None
    return complete(structured(item) if isinstance(item, dict) else None for item in items)


def choices_of(value: JsonValue) -> tuple[Message, ...] | None:
    """A list of structured replies, or its JSON; items of the Responses API are parts of one reply."""
    items = decoded(value)
    if not isinstance(items, list):
        return None
    are_items = any(isinstance(item, dict) and "type" in item for item in items)
    replies = (structured(item, "assistant") if isinstance(item, dict) else None for item in items)
    return complete(replies, choices=not are_items)


def complete(messages: Iterable[tuple[Message, ...] | None], *, choices: bool = False) -> tuple[Message, ...] | None:
    """The messages, or None if one of them could not be read: a chat with a hole is not what the model saw.

    What a model said in one turn is one message: its reasoning, its text, and its calls. Of `choices` each is one, and
    those after the first need not be readable.
    """
    found: list[Message] = []
    for group in messages:
        if group is None:
            return tuple(found) if choices and reply_of(found) else None
        for message in group:
            if found and _is_one_turn(found[-1], message, choices):
                message = _joined(found.pop(), message)
            found.append(message)
    return tuple(found)


def reply_of(messages: Sequence[Message] | None) -> Message | None:
    """The reply: the first of the choices. None where there is none, or it does not say anything."""
    if not messages or messages[0].role != "assistant" or not messages[0].content.strip():
        return None
    return messages[0]


def makes_calls(message: Message) -> bool:
    """Return whether calls of tools are among what the message says."""
    return any(line.startswith(_CALL) for line in message.content.splitlines())


def numbered(attributes: Attributes, prefix: str, *, holes: bool = False) -> list[Attributes] | None:
    """The flattened list at `prefix`: `PREFIX.0.a`, `PREFIX.1.a` … give one mapping of the rest of the key each.

    None when a number is missing, unless `holes` are meant: exporters drop attributes beyond their limit, 128 a span by
    default.
    """
    items: dict[int, Attributes] = {}
    for key, value in attributes.items():
        if not key.startswith(f"{prefix}."):
            continue
        number, _, rest = key[len(prefix) + 1 :].partition(".")
        if number.isascii() and number.isdigit() and len(number) < 7:
            items.setdefault(int(number), {})[rest] = value
    return [items[number] for number in sorted(items)] if holes or set(items) == set(range(len(items))) else None


def _message(role: str, parts: Sequence[Part]) -> list[Message]:
    if all(part.text is None for part in parts):  # nothing, or reasoning that its provider keeps for itself
        return []
    said = [part.text for part in parts if part.text and part.kind is not Kind.REASONING]
    thought = [part.text for part in parts if part.text and part.kind is Kind.REASONING]
    reasoning = "\n".join(thought) if thought and role == "assistant" else None
    return [Message.model_validate({"role": role, "content": "\n".join(said), "reasoning_content": reasoning})]


def _is_one_turn(before: Message, message: Message, choices: bool) -> bool:
    if before.role != "assistant" or message.role != "assistant":
        return False
    only_reasoning = not before.content and before.reasoning_content is not None
    only_calls = message.content.startswith(_CALL) and message.reasoning_content is None
    return only_reasoning or (only_calls and not choices)


def _joined(before: Message, message: Message) -> Message:
    thought = [text for text in (before.reasoning_content, message.reasoning_content) if text]
    said = [text for text in (before.content, message.content) if text]
    return Message(role="assistant", content="\n".join(said), reasoning_content="\n".join(thought) or None)


def _openai_call(value: JsonValue) -> Part:
    if not isinstance(value, dict):
        return HIDDEN
    # OpenAI's custom tools have a text as their input.
    inner = value.get("function") or value.get("custom")
    found = inner if isinstance(inner, dict) else value
    return call_part(found.get("name"), found.get("arguments", found.get("input")))
