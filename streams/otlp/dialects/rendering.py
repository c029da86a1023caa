"""Messages of any dialect as the OpenAI API has them: the same message is the same in every dialect.

Texts of one message are joined by line feeds. Calls of tools become `tool_calls`, an answer a message of the role
tool, reasoning the `reasoning_content`; images, files and parts that only some APIs have are kept as parts. A message
of which anything is hidden cannot be read.
"""

from collections.abc import Iterable, Mapping, Sequence

from pydantic import JsonValue

from ratchet_client.messages import ContentPart, Message, Messages, ToolCall
from streams.calls.json_values import mapping
from streams.calls.media import kept_part
from streams.otlp.dialects.parts import (
    HIDDEN,
    Answer,
    Hidden,
    Part,
    Reasoning,
    Refusal,
    Text,
    call_part,
    content_of,
    custom_call,
    other_call,
    part_of,
    parts_of,
    reasoning_part,
    refusal_part,
)
from streams.otlp.dialects.texts import decoded
from streams.otlp.records import Attributes

_ROLES = {
    "system": "system",
    "developer": "developer",
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
_OTHER_ITEMS = frozenset({"mcp_list_tools", "mcp_approval_request", "compaction", "program"})
_CALL_IDS = ("tool_call_id", "call_id", "id")


def messages_of(
    role: JsonValue, parts: Sequence[Part], *, call_id: JsonValue = None, name: JsonValue = None
) -> Messages | None:
    """The message; with answers of tools in it, one message for each of them and one for what is between them.

    None for a role that no chat has, and where something is hidden: a part, or everything. A tool may answer nothing.
    `call_id` says which call a tool's message answers, `name` which tool it is.
    """
    known = _ROLES.get(role) if isinstance(role, str) else None
    if known is None:
        return None
    if role in ("thinking", "reasoning"):
        parts = [Reasoning(part.text) if isinstance(part, Text) else part for part in parts]
    if not parts:
        parts = [Text("")] if known == "tool" else [HIDDEN]
    if any(isinstance(part, Hidden) for part in parts):
        return None
    if known == "assistant":
        return tuple(_message(known, _with_served_calls(parts), name=name))
    found: list[Message] = []
    run: list[Part] = []
    for part in parts:
        if isinstance(part, Answer):
            found += _message(known, run, call_id, name)
            found.append(_tool_message(part, call_id))
            run = []
        else:
            run.append(part)
    return (*found, *_message(known, run, call_id, name))


def structured(value: Mapping[str, JsonValue], role: JsonValue = None) -> Messages | None:
    """A message as the OpenTelemetry conventions or an API structures it; its own role goes before `role`.

    An item of OpenAI's Responses API is a message as well.
    """
    kind = value.get("type")
    if isinstance(kind, str) and kind != "message" and "role" not in value and (item := _item(kind, value)) is not None:
        return item
    parts: list[Part] = []
    parts += [reasoning_part(found) for name in ("reasoning_content", "reasoning") if (found := value.get(name))][:1]
    calls, content = value.get("tool_calls") or value.get("function_call"), value.get("content")
    calls = calls if isinstance(calls, list) else [calls] if calls else []
    parts += parts_of(value.get("parts")) + ([] if content == [] and calls else parts_of(content))
    if isinstance(refusal := value.get("refusal"), str) and refusal:
        parts.append(refusal_part(refusal))
    # Some instrumentations write the calls of content blocks a second time.
    if not any(isinstance(part, ToolCall) for part in parts):
        parts += [_openai_call(call) for call in calls]
    call_id = next((found for key in _CALL_IDS if (found := value.get(key))), None)
    return messages_of(
        role_of(value.get("role") or role, value.get("channel")), parts, call_id=call_id, name=value.get("name")
    )


def role_of(role: JsonValue, channel: JsonValue) -> JsonValue:
    """The role of a message. Models of the harmony format reason in a message of its own, in the channel `analysis`."""
    replies = isinstance(role, str) and _ROLES.get(role) == "assistant"
    return "reasoning" if replies and channel == "analysis" else role


def chat_of(value: JsonValue) -> Messages | None:
    """A list of structured messages, or its JSON; None unless every one of them can be read."""
    items = decoded(value)
    if not isinstance(items, list):
        return None
    return complete(structured(item) if isinstance(item, dict) else None for item in items)


def choices_of(value: JsonValue) -> Messages | None:
    """A list of structured replies, or its JSON; items of the Responses API are parts of one reply."""
    items = decoded(value)
    if not isinstance(items, list):
        return None
    are_items = any(isinstance(item, dict) and "type" in item for item in items)
    replies = (structured(item, "assistant") if isinstance(item, dict) else None for item in items)
    return complete(replies, choices=not are_items)


def complete(messages: Iterable[Messages | None], *, choices: bool = False) -> Messages | None:
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
    if not messages or messages[0].role != "assistant":
        return None
    reply = messages[0]
    says = reply.text.strip() or reply.calls or not reply.is_readable or getattr(reply, "refusal", None)
    return reply if says else None


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


def _item(kind: str, value: Mapping[str, JsonValue]) -> Messages | None:
    """An item of the Responses API; None for one that is a message, or no item."""
    if (known := _ITEM_ROLES.get(kind)) is not None:
        return messages_of(known, [part_of(dict(value))])
    if kind.endswith("_output"):
        return messages_of("tool", [kept_part(kind, value)], call_id=value.get("call_id"))
    if kind.endswith("_call"):
        # The agent answers calls that have a `call_id`; the others the provider's own tools answered.
        call = other_call(value) if value.get("call_id") else kept_part(kind, value)
        return messages_of("assistant", [call])
    if kind in _OTHER_ITEMS:
        return messages_of("assistant", [kept_part(kind, value)])
    return messages_of("user", [kept_part(kind, value)]) if kind == "mcp_approval_response" else None


def _message(role: str, parts: Sequence[Part], call_id: JsonValue = None, name: JsonValue = None) -> list[Message]:
    if all(isinstance(part, Reasoning) and part.text is None for part in parts):
        return []  # nothing, or reasoning that its provider keeps for itself
    thought = [part.text for part in parts if isinstance(part, Reasoning) and part.text]
    calls = tuple(part for part in parts if isinstance(part, ToolCall))
    refused = "\n".join(part.text for part in parts if isinstance(part, Refusal))
    content = content_of(parts)
    told: dict[str, object] = {"role": role, "content": content or (None if calls or refused else "")}
    if role == "assistant":
        told |= {"reasoning_content": "\n".join(thought) or None, "tool_calls": calls or None}
    if refused:
        told["refusal"] = refused
    if role == "tool":
        told["tool_call_id"] = call_id if isinstance(call_id, str) and call_id else None
    # A tool's name is for `with_call_ids`.
    if isinstance(name, str) and name:
        told["name"] = name
    return [Message.model_validate(told)]


def _tool_message(answer: Answer, call_id: JsonValue) -> Message:
    identity = answer.call_id or (call_id if isinstance(call_id, str) and call_id else None)
    told: dict[str, object] = {"role": "tool", "content": answer.content, "tool_call_id": identity}
    if answer.is_error:
        told["is_error"] = True
    return Message.model_validate(told | {"name": answer.name})


def _with_served_calls(parts: Sequence[Part]) -> list[Part]:
    """The parts of a reply; calls that were answered within it, by the provider's own tools, are kept as parts."""
    answered = {part.call_id for part in parts if isinstance(part, Answer)}
    return [_served(part, answered) for part in parts]


def _served(part: Part, answered: set[str | None]) -> Part:
    if isinstance(part, Answer):
        response: JsonValue = part.content if isinstance(part.content, str) else _as_json(part.content)
        return kept_part("server_tool_call_response", {"id": part.call_id, "name": part.name, "response": response})
    if isinstance(part, ToolCall) and part.id in answered and part.function is not None:
        call = part.function
        return kept_part("server_tool_call", {"id": part.id, "name": call.name, "arguments": call.arguments})
    return part


def _as_json(parts: Sequence[ContentPart]) -> list[JsonValue]:
    return [part.model_dump(mode="json", exclude_none=True) for part in parts]


def _is_one_turn(before: Message, message: Message, choices: bool) -> bool:
    if before.role != "assistant" or message.role != "assistant":
        return False
    only_reasoning = not before.content and not before.calls and before.reasoning_content is not None
    only_calls = bool(message.calls) and not message.content and message.reasoning_content is None
    # A provider's own tools are called within a turn.
    served = any(_is_served(said) for said in (before, message))
    return only_reasoning or ((only_calls or served) and not choices)


def _is_served(message: Message) -> bool:
    parts = message.content if isinstance(message.content, tuple) else ()
    return any(part.type.endswith(("_call", "_call_response")) or part.type in _OTHER_ITEMS for part in parts)


def _joined(before: Message, message: Message) -> Message:
    thought = [text for text in (before.reasoning_content, message.reasoning_content) if text]
    said = [_as_part(message.content) for message in (before, message)]
    content = content_of([part for parts in said for part in parts])
    calls = before.calls + message.calls
    told = before.model_dump(exclude_none=True) | message.model_dump(exclude_none=True)
    return Message.model_validate(
        told
        | {
            "content": content or (None if calls or "refusal" in told else ""),
            "tool_calls": calls or None,
            "reasoning_content": "\n".join(thought) or None,
        }
    )


def _as_part(content: str | tuple[ContentPart, ...] | None) -> Sequence[Part]:
    if isinstance(content, tuple):
        return [Text(part.text) if part.type == "text" and part.text is not None else part for part in content]
    return [Text(content)] if content is not None else []


def _openai_call(value: JsonValue) -> Part:
    if not isinstance(value, dict):
        return HIDDEN
    custom, function = mapping(value.get("custom")), mapping(value.get("function"))
    identity = value.get("id") or value.get("call_id")
    if custom:
        return custom_call(custom.get("name"), custom.get("input"), identity)
    found = function or value
    return call_part(found.get("name"), found.get("arguments", found.get("input")), identity)
