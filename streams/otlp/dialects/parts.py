"""Parts of messages in the forms that APIs and instrumentations give them: text, reasoning, calls and answers of tools.

Known are the parts of the OpenTelemetry conventions, the content blocks of Anthropic, the items of OpenAI's Responses
API, the parts of Gemini, of Bedrock's Converse and of the Vercel AI SDK. Anything else is `[its type]`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from pydantic import JsonValue
from pydantic_core import from_json

from streams.otlp.dialects.blocks import CALLS, is_blocks

_TEXTS = frozenset({"text", "input_text", "output_text", "summary_text"})
_REASONING = frozenset({"reasoning", "reasoning_text", "thinking", "thought", "reasoning_content"})
_ANSWERS = frozenset({"tool_call_response", "tool_result", "tool-result", "function_response"})
_QUOTED = CALLS | _ANSWERS | {"toolUse", "toolResult"}
_OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output"})
_MEDIA = ("inline_data", "inlineData", "file_data", "fileData")
_CONVERSE = (
    *("toolUse", "toolResult", "reasoningContent", "cachePoint", "guardContent", "citationsContent"),
    *("image", "document", "video", "audio", "searchResult"),
)
# What instrumentations and collectors write in the place of a text that they hide. The whole text is this.
_MASK = re.compile(
    r"""(?ix) (?: [\[<({]{1,3} | [_*\#$%]{1,3} ) \s*
    (?: (?:content|text|data|message|prompt|input|output|value|pii|phi|secret|sensitive) [\s_-] ){0,3}
    (?: (?: redacted | filtered | masked | scrubbed | hidden | omitted | withheld | (?<=[\s_-]) removed
          | elided | obfuscated | anonymi[sz]ed | suppressed ) (?: [\s:_,-] [^\n\])>}]{0,80} )?
      | (?: removed | excluded | stripped | not[\s_-]captured )
        (?: (?: [:_,-] | \s+ (?:by|for|because|due|per|as)\b ) [^\n\])>}]{0,80} )? )
    \s* /? (?: [\])>}]{1,3} | [_*\#$%]{1,3} )
    | \*{3,} | [█•]{3} [█•\s]* | (?-i:REDACTED|Redacted) (?: _ \w{1,80} )?"""
)


class Kind(Enum):
    """The place of a part: in the message itself, in its reasoning, or in a tool's message of its own."""

    CONTENT = auto()
    CALL = auto()
    REASONING = auto()
    ANSWER = auto()


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a message as text; None where the part is there and what it says was hidden or cut off."""

    text: str | None
    kind: Kind = Kind.CONTENT


HIDDEN = Part(None)


def is_mask(text: str) -> bool:
    """Return whether the text stands in the place of one that was hidden.

    >>> is_mask("__REDACTED__"), is_mask("[redacted by policy]"), is_mask("My name is [REDACTED].")
    (True, True, False)
    """
    text = text.strip()
    return len(text) <= 128 and _MASK.fullmatch(text) is not None


def text_part(value: JsonValue, kind: Kind = Kind.CONTENT) -> Part:
    """A text, or the compact JSON of anything else. A mask is no text."""
    text = value if isinstance(value, str) else compact(value)
    return Part(None if is_mask(text) else text, kind)


def call_part(name: JsonValue, arguments: JsonValue) -> Part:
    """A tool call in the one way in which it is written; hidden where its name or its arguments are."""
    if isinstance(arguments, str) and (is_mask(arguments) or is_cut(arguments)):
        return HIDDEN
    if not isinstance(name, str) or not name or is_mask(name):
        return HIDDEN
    written = compact({"name": name, "arguments": decoded(arguments)})
    return Part(f"<tool_call>{written}</tool_call>", Kind.CALL)


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
        return Part(None, Kind.REASONING)
    if kind == "refusal":
        return text_part(value.get("refusal"))
    if (converse := _converse(kind, value)) is not None:
        return converse
    if kind in CALLS:
        names = ("function_call", "functionCall", "function")
        call = next((found for name in names if (found := _mapping(value.get(name)))), value)
        return call_part(_first(call, ("name", "toolName")), _first(call, ("arguments", "input", "args")))
    if kind in _ANSWERS:
        return _answer(
            kind, _mapping(value.get("function_response")) or _mapping(value.get("functionResponse")) or value
        )
    if kind in _OUTPUTS:
        return _blocks(value.get("output"), Kind.ANSWER)
    return Part(f"[{kind}]")


def reasoning_part(value: JsonValue) -> Part:
    """Reasoning as a text, a part, or a list of parts; None for what is encrypted or hidden."""
    if isinstance(value, list):
        texts = [text for item in value if (text := reasoning_part(item).text)]
        return Part("\n".join(texts) or None, Kind.REASONING)
    if isinstance(value, dict):
        names = ("thinking", "reasoning", "content", "text", "summary", "reasoning_content", "reasoningText")
        return reasoning_part(next((found for name in names if (found := value.get(name))), None))
    return text_part(value, Kind.REASONING) if isinstance(value, str) and value else Part(None, Kind.REASONING)


def decoded(value: JsonValue) -> JsonValue:
    """The value of a JSON text; anything else, and a text that is not JSON, unchanged."""
    if not isinstance(value, str):
        return value
    try:
        parsed: JsonValue = from_json(value, allow_inf_nan=False)
    except ValueError:
        return value
    return parsed


def is_cut(text: str) -> bool:
    """Return whether the text is the beginning of a JSON object or list, and not the whole of one.

    >>> is_cut('{"room": "kit'), is_cut('{"room": "kitchen"}'), is_cut("{room}")
    (True, False, False)
    """
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        from_json(text)
    except ValueError:
        try:
            from_json(text, allow_partial="trailing-strings")
        except ValueError:
            return False
        return True
    return False


def compact(value: JsonValue) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


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
    inner = _mapping(value.get(kind)) if kind in _CONVERSE else None
    if inner is None:
        return None
    if kind == "toolUse":
        return call_part(inner.get("name"), inner.get("input"))
    if kind == "reasoningContent":
        return reasoning_part(dict(inner))
    if kind == "cachePoint":
        return Part("")
    if kind == "guardContent" and (guarded := _mapping(inner.get("text"))) is not None:
        return part_of({"text": guarded.get("text")})
    if kind == "citationsContent":
        return _listed(inner.get("content"), Kind.CONTENT)
    if kind != "toolResult":
        return None
    return _listed(inner.get("content"), Kind.ANSWER)


def _listed(value: JsonValue, kind: Kind) -> Part:
    items = value if isinstance(value, list) else [value]
    texts = [
        compact(item["json"]) if isinstance(item, dict) and "json" in item else part_of(item).text for item in items
    ]
    known = [text for text in texts if text is not None]
    return Part("\n".join(known) if len(known) == len(texts) else None, kind)


def _answer(kind: str, value: Mapping[str, JsonValue]) -> Part:
    """The answer of a tool. Anthropic leaves out the content of an empty one; elsewhere its absence hides it."""
    found = _first(value, ("response", "result", "output", "content"))
    if kind == "tool_result" and found is None:
        found = ""
    if kind == "tool-result" and isinstance(found, dict) and found.keys() >= {"type", "value"}:
        found = found["value"]
    # Gemini takes objects only, so a text is put into one.
    if kind == "function_response" and isinstance(found, dict) and list(found) in (["result"], ["output"]):
        (found,) = found.values()
    return _blocks(found, Kind.ANSWER)


def _blocks(value: JsonValue, kind: Kind) -> Part:
    """A text, a list of blocks as the text of them, or compact JSON."""
    if value is None:
        return Part(None, kind)
    if isinstance(value, list) and (is_blocks(value) or {"type": "text"} in value):
        texts = [part_of(item).text for item in value]
        known = [text for text in texts if text is not None]
        return Part("\n".join(known) if len(known) == len(texts) else None, kind)
    return text_part(value, kind)


def quoted_tools(text: JsonValue) -> list[JsonValue] | None:
    """The parts in a text that quotes them as JSON, if calls or answers of tools are among them; else it is a text."""
    value = decoded(text) if isinstance(text, str) and text.lstrip().startswith("[") else None
    if isinstance(value, list) and is_blocks(value):
        kinds = [item.get("type", _untyped(item)) for item in value if isinstance(item, dict)]
        return value if any(isinstance(kind, str) and kind in _QUOTED for kind in kinds) else None
    return None


def _first(value: Mapping[str, JsonValue], names: Sequence[str]) -> JsonValue:
    return next((found for name in names if (found := value.get(name)) is not None), None)


def _mapping(value: JsonValue) -> Mapping[str, JsonValue] | None:
    return value if isinstance(value, dict) else None
