"""Messages of any dialect as `Message`s, whose content is text: the same message gives the same text in every dialect.

Text stays as it is. A tool call becomes `<tool_call>{"arguments":{…},"name":"…"}</tool_call>` without its id, a tool's
response its text or compact JSON, reasoning nothing, and any other part `[its type]`. Parts are joined by newlines.
"""

import json
from collections.abc import Iterable, Mapping, Sequence

from pydantic import JsonValue
from pydantic_core import from_json

from streams.events import Message
from streams.otlp.records import Attributes

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "tool": "tool",
    "function": "tool",
}


def message(role: JsonValue, parts: Sequence[str]) -> Message | None:
    """The message, or None for a role that no chat has."""
    known = _ROLES.get(role) if isinstance(role, str) else None
    if known is None:
        return None
    return Message.model_validate({"role": known, "content": "\n".join(part for part in parts if part)})


def structured(value: Mapping[str, JsonValue], role: JsonValue = None) -> Message | None:
    """A message as the OpenTelemetry conventions or the OpenAI API structure it; its own role goes before `role`."""
    parts = _parts(value.get("parts")) + _parts(value.get("content"))
    calls = value.get("tool_calls")
    if isinstance(calls, list):
        parts += [_openai_call(call) for call in calls]
    return message(value.get("role") or role, parts)


def chat_of(value: JsonValue, role: str | None = None) -> tuple[Message, ...] | None:
    """A list of structured messages, or its JSON; None unless every one of them can be read."""
    items = decoded(value)
    if not isinstance(items, list):
        return None
    return complete(structured(item, role) if isinstance(item, dict) else None for item in items)


def complete(messages: Iterable[Message | None]) -> tuple[Message, ...] | None:
    """The messages, or None if one of them could not be read: a chat with a hole is not what the model saw."""
    found = tuple(messages)
    known = tuple(item for item in found if item is not None)
    return known if len(known) == len(found) else None


def decoded(value: JsonValue) -> JsonValue:
    """The value of a JSON text; anything else, and a text that is not JSON, unchanged."""
    if not isinstance(value, str):
        return value
    try:
        parsed: JsonValue = from_json(value, allow_inf_nan=False)
    except ValueError:
        return value
    return parsed


def tool_call(name: JsonValue, arguments: JsonValue) -> str:
    """The one way in which a tool call is written."""
    return f"<tool_call>{_compact({'name': name, 'arguments': decoded(arguments)})}</tool_call>"


def numbered(attributes: Attributes, prefix: str) -> list[Attributes] | None:
    """The flattened list at `prefix`: `PREFIX.0.a`, `PREFIX.1.a` … give one mapping of the rest of the key each.

    None when a number is missing: exporters drop attributes beyond their limit, 128 a span by default.
    """
    items: dict[int, Attributes] = {}
    for key, value in attributes.items():
        if not key.startswith(f"{prefix}."):
            continue
        number, _, rest = key[len(prefix) + 1 :].partition(".")
        if number.isascii() and number.isdigit() and len(number) < 7:
            items.setdefault(int(number), {})[rest] = value
    return [items[number] for number in range(len(items))] if set(items) == set(range(len(items))) else None


def _parts(value: JsonValue) -> list[str]:
    if isinstance(value, list):
        return [_part(item) for item in value]
    return [] if value is None else [_text(value)]


def _part(value: JsonValue) -> str:
    if not isinstance(value, dict):
        return _text(value)
    match value.get("type"):
        case "text":
            return _text(value.get("content", value.get("text")))
        case "reasoning":
            return ""
        case "tool_call":
            return tool_call(value.get("name"), value.get("arguments"))
        case "tool_call_response":
            return _text(value.get("response", value.get("result")))
        case kind:
            return f"[{kind}]"


def _openai_call(value: JsonValue) -> str:
    function = value.get("function") if isinstance(value, dict) else None
    if isinstance(function, dict):
        return tool_call(function.get("name"), function.get("arguments"))
    return tool_call(value.get("name"), value.get("arguments")) if isinstance(value, dict) else ""


def _text(value: JsonValue) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else _compact(value)


def _compact(value: JsonValue) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
