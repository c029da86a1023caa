"""Parts of messages in the forms that APIs and instrumentations give them: text, reasoning, calls and answers of tools.

Known are the parts of the OpenTelemetry conventions, the content blocks of Anthropic, the items of OpenAI's Responses
API, the parts of Gemini, of Bedrock's Converse and of the Vercel AI SDK. Anything else is kept as it came.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import JsonValue

from ratchet_client.messages import ContentPart, FunctionCall, ToolCall
from streams.calls.json_values import compact, mapping
from streams.calls.media import kept_part, media_part
from streams.otlp.dialects.blocks import CALLS, is_blocks
from streams.otlp.dialects.texts import decoded, is_cut, is_mask

_TEXTS = frozenset({"text", "input_text", "output_text", "summary_text"})
_REASONING = frozenset({"reasoning", "reasoning_text", "thinking", "thought", "reasoning_content"})
_ANSWERS = frozenset(
    {"tool_call_response", "tool_result", "tool-result", "function_response"}
    | {"function_call_output", "custom_tool_call_output"}
)
_QUOTED = CALLS | _ANSWERS | {"toolUse", "toolResult"}
_CALL_IDS = ("call_id", "toolCallId", "tool_call_id", "tool_use_id", "toolUseId", "id")
_MEDIA = ("inline_data", "inlineData", "file_data", "fileData")
_CONVERSE = (
    *("toolUse", "toolResult", "reasoningContent", "cachePoint", "guardContent", "citationsContent"),
    *("image", "document", "video", "audio", "searchResult"),
)


@dataclass(frozen=True, slots=True)
class Text:
    """A text that was said."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A model's reasoning; None where its provider keeps it to itself, or it was hidden."""

    text: str | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A model's refusal."""

    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a tool to the call `call_id`, which few APIs leave out; `name` is the tool's where it is told."""

    content: str | tuple[ContentPart, ...]
    call_id: str | None = None
    name: str | None = None
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Hidden:
    """A part that is there, and what it says was hidden or cut off."""


HIDDEN = Hidden()
Part: TypeAlias = Text | Reasoning | Refusal | ToolCall | Answer | ContentPart | Hidden


def text_part(value: JsonValue) -> Text | Hidden:
    """A text, or the compact JSON of anything else. A mask is no text."""
    text = value if isinstance(value, str) else compact(value)
    return HIDDEN if is_mask(text) else Text(text)


def call_part(name: JsonValue, arguments: JsonValue, identity: JsonValue = None) -> ToolCall | Hidden:
    """A call of a function; hidden where its name or its arguments are.

    The arguments are the text that the model wrote where it is told, else compact JSON.
    """
    if isinstance(arguments, str) and (is_mask(arguments) or is_cut(arguments)):
        return HIDDEN
    if not isinstance(name, str) or not name or is_mask(name):
        return HIDDEN
    written = arguments if isinstance(arguments, str) else "{}" if arguments is None else compact(arguments)
    return ToolCall(id=_identity(identity) or "", function=FunctionCall(name=name, arguments=written))


def custom_call(name: JsonValue, written: JsonValue, identity: JsonValue) -> ToolCall | Hidden:
    """A call of a tool of OpenAI's that takes a text and no arguments."""
    found = call_part(name, "" if written is None else written, identity)
    if isinstance(found, Hidden) or found.function is None:
        return HIDDEN
    custom = {"name": found.function.name, "input": found.function.arguments}
    return ToolCall.model_validate({"id": found.id, "type": "custom", "custom": custom})


def other_call(value: Mapping[str, JsonValue]) -> ToolCall:
    """A call of neither, as it came: of a computer or a shell that the agent has."""
    kept = kept_part(str(value.get("type")), value).model_dump(exclude_none=True)
    return ToolCall.model_validate(kept | {"id": _identity(_first(value, _CALL_IDS)) or ""})


def parts_of(value: JsonValue) -> list[Part]:
    """The parts of a message's `parts` or `content`: a list, one part, or a text. An empty list hides its content."""
    if isinstance(value, list):
        return [part_of(item) for item in value] or [HIDDEN]
    return [] if value is None else [part_of(value)]


def part_of(value: JsonValue) -> Part:
    """One part, in any of the forms that are known."""
    if not isinstance(value, dict):
        return HIDDEN if value is None else text_part(value)
    kind = value.get("type", _untyped(value))
    if not isinstance(kind, str):
        return HIDDEN
    if kind in _REASONING or (value.get("thought") is True and kind in _TEXTS):
        return reasoning_part(value)
    if kind in _TEXTS:
        text = _first(value, ("content", "text"))
        return HIDDEN if text is None else text_part(text)
    if kind == "redacted_thinking":
        return Reasoning(None)
    if kind == "refusal":
        return refusal_part(_first(value, ("refusal", "content", "text")))
    if (converse := _converse(kind, value)) is not None:
        return converse
    if kind == "custom_tool_call":
        return custom_call(value.get("name"), value.get("input"), _first(value, _CALL_IDS))
    if kind in CALLS and value.get("builtin") is not True:
        names = ("function_call", "functionCall", "function")
        call = next((found for name in names if (found := mapping(value.get(name)))), value)
        identity = _first(value, _CALL_IDS) or _first(call, _CALL_IDS)
        return call_part(_first(call, ("name", "toolName")), _first(call, ("arguments", "input", "args")), identity)
    if kind in _ANSWERS and value.get("builtin") is not True:
        return _answer(kind, mapping(value.get("function_response")) or mapping(value.get("functionResponse")) or value)
    return media_part(kind, value) or kept_part(kind, value)


def refusal_part(value: JsonValue) -> Refusal | Hidden:
    found = text_part(value) if value is not None else HIDDEN
    return Refusal(found.text) if isinstance(found, Text) else HIDDEN


def reasoning_part(value: JsonValue) -> Reasoning:
    """Reasoning as a text, a part, or a list of parts."""
    if isinstance(value, list):
        texts = [text for item in value if (text := reasoning_part(item).text)]
        return Reasoning("\n".join(texts) or None)
    if isinstance(value, dict):
        names = ("thinking", "reasoning", "content", "text", "summary", "reasoning_content", "reasoningText")
        return reasoning_part(next((found for name in names if (found := value.get(name))), None))
    return Reasoning(value if isinstance(value, str) and value and not is_mask(value) else None)


def content_of(parts: Sequence[Part]) -> str | tuple[ContentPart, ...] | None:
    """The texts among the parts, joined by line feeds; a list where others stand between them. None without any."""
    said = [part for part in parts if isinstance(part, ContentPart) or (isinstance(part, Text) and part.text)]
    if any(isinstance(part, ContentPart) for part in said):
        return tuple(ContentPart(type="text", text=part.text) if isinstance(part, Text) else part for part in said)
    if any(isinstance(part, Text) for part in parts):
        return "\n".join(part.text for part in said if isinstance(part, Text))
    return None


def quoted_tools(text: JsonValue) -> list[JsonValue] | None:
    """The parts in a text that quotes them as JSON, if calls or answers of tools are among them; else it is a text."""
    value = decoded(text) if isinstance(text, str) and text.lstrip().startswith("[") else None
    if isinstance(value, list) and is_blocks(value):
        kinds = [item.get("type", _untyped(item)) for item in value if isinstance(item, dict)]
        return value if any(isinstance(kind, str) and kind in _QUOTED for kind in kinds) else None
    return None


def _untyped(value: Mapping[str, JsonValue]) -> JsonValue:
    """The type of a part that does not name it: Gemini's parts have it as their key."""
    if value.get("thought") is True:
        return "thought"
    for keys, kind in (
        (("function_call", "functionCall"), "function_call"),
        (("function_response", "functionResponse"), "function_response"),
    ):
        if any(isinstance(value.get(key), dict) for key in keys):
            return kind
    if "text" in value:
        return "text"
    return next((key for key in (*_MEDIA, *_CONVERSE) if key in value), None)


def _converse(kind: str, value: Mapping[str, JsonValue]) -> Part | None:
    """A part of Bedrock's Converse, whose type is its key; None for one that reads as any other."""
    inner = mapping(value.get(kind)) if kind in _CONVERSE else {}
    if not inner:
        return None
    if kind == "toolUse":
        return call_part(inner.get("name"), inner.get("input"), inner.get("toolUseId"))
    if kind == "reasoningContent":
        return reasoning_part(inner)
    if kind == "cachePoint":
        return Text("")
    if kind == "guardContent" and (guarded := mapping(inner.get("text"))):
        return part_of({"text": guarded.get("text")})
    if kind == "citationsContent":
        content = _listed(inner.get("content"))
        return Text(content) if isinstance(content, str) else HIDDEN
    if kind != "toolResult":
        return None
    if (content := _listed(inner.get("content"))) is None:
        return HIDDEN
    return Answer(content, _identity(inner.get("toolUseId")), is_error=inner.get("status") == "error")


def _listed(value: JsonValue) -> str | tuple[ContentPart, ...] | None:
    items = value if isinstance(value, list) else [value]
    parts = [
        text_part(compact(item["json"])) if isinstance(item, dict) and "json" in item else part_of(item)
        for item in items
    ]
    return None if any(isinstance(part, Hidden) for part in parts) else content_of(parts) or ""


def _answer(kind: str, value: Mapping[str, JsonValue]) -> Answer | Hidden:
    """The answer of a tool. Anthropic leaves out the content of an empty one; elsewhere its absence hides it."""
    found = _first(value, ("response", "result", "output", "content"))
    if kind == "tool_result" and found is None:
        found = ""
    if kind == "tool-result" and isinstance(found, dict) and found.keys() >= {"type", "value"}:
        found = found["value"]
    # Gemini takes objects only, so a text is put into one.
    if kind == "function_response" and isinstance(found, dict) and list(found) in (["result"], ["output"]):
        (found,) = found.values()
    content = answer_content(found)
    if content is None:
        return HIDDEN
    name = _first(value, ("name", "toolName"))
    failed = value.get("is_error") is True
    return Answer(content, _identity(_first(value, _CALL_IDS)), name if isinstance(name, str) else None, failed)


def answer_content(value: JsonValue) -> str | tuple[ContentPart, ...] | None:
    """A text, a list of blocks as the content that they are, or compact JSON; None where it is hidden."""
    if value is None:
        return None
    if isinstance(value, list) and (is_blocks(value) or {"type": "text"} in value):
        return _listed(value)
    part = text_part(value)
    return part.text if isinstance(part, Text) else None


def _identity(value: JsonValue) -> str | None:
    return value if isinstance(value, str) and value else None


def _first(value: Mapping[str, JsonValue], names: Sequence[str]) -> JsonValue:
    return next((found for name in names if (found := value.get(name)) is not None), None)
