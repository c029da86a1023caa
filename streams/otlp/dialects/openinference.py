"""OpenInference: `openinference.span.kind` and `llm.input_messages.N.message.*`.

https://arize-ai.github.io/openinference/spec/semantic_conventions.html, checked against
openinference-semantic-conventions 0.1.42 and openinference-instrumentation-openai 0.1.66.
"""

from collections.abc import Sequence

from streams.events import Message
from streams.otlp.dialects.dialect import Chat
from streams.otlp.dialects.parts import (
    HIDDEN,
    Kind,
    Part,
    call_part,
    decoded,
    part_of,
    parts_of,
    quoted_tools,
    reasoning_part,
    text_part,
)
from streams.otlp.dialects.rendering import complete, messages_of, numbered, reply_of, role_of
from streams.otlp.records import Attributes, LogRecord, Span

_FUNCTION = "tool_call.function."
_KIND = "openinference.span.kind"
_SEEN, _SAID = "llm.input_messages", "llm.output_messages"


class OpenInference:
    """Spans of the kind `LLM`. Limits drop the kind first; then messages tell a model call."""

    conversation = "session.id"

    def recognises(self, span: Span) -> bool:
        if span.dropped_attributes and _KIND not in span.attributes:
            return any(key.startswith((f"{_SEEN}.", f"{_SAID}.")) for key in span.attributes)
        return span.attributes.get(_KIND) == "LLM"

    def read(self, span: Span, logs: Sequence[LogRecord]) -> Chat | None:
        whole = not span.dropped_attributes
        seen = _seen(span.attributes, whole)
        said = numbered(span.attributes, _SAID)
        if not seen or not said:
            return None
        messages = complete(_messages(item, whole) for item in seen)
        replies = (_messages({"message.role": "assistant", **item}, whole) for item in said)
        reply = reply_of(complete(replies, choices=_has_choices(span)))
        model = span.attributes.get("llm.model_name")
        return Chat(messages, reply, model if isinstance(model, str) else None) if messages and reply else None


def _seen(attributes: Attributes, whole: bool) -> list[Attributes] | None:
    """The messages that the model saw. In the Responses API, number 0 is that of the instructions, given or not."""
    found = numbered(attributes, _SEEN)
    if found is not None or not whole or any(key.startswith(f"{_SEEN}.0.") for key in attributes):
        return found
    found = numbered({f"{_SEEN}.0.message": None, **attributes}, _SEEN)
    return found and found[1:]


def _messages(item: Attributes, whole: bool) -> tuple[Message, ...] | None:
    """`whole` unless attributes were dropped: then one that is missing may have been there."""
    contents, calls = numbered(item, "message.contents"), _calls(item, whole)
    if contents is None or calls is None:
        return None
    parts = [reasoning_part(item["message.reasoning_content"])] if item.get("message.reasoning_content") else []
    if (content := item.get("message.content")) is not None:
        blocks = quoted_tools(content)
        parts += [text_part(content)] if blocks is None else parts_of(blocks)
    parts += [_part(found) for found in contents]
    if not any(part.kind is Kind.CALL for part in parts):
        parts += [call_part(call.get(f"{_FUNCTION}name"), call.get(f"{_FUNCTION}arguments")) for call in calls]
    name = item.get("message.function_call_name")
    if name is not None and not calls and item.get("message.role") != "function":
        parts.append(call_part(name, item.get("message.function_call_arguments_json")))
    if not whole and (not parts or any(f"{_FUNCTION}arguments" not in call for call in calls)):
        return None
    return messages_of(role_of(item.get("message.role"), item.get("message.channel")), parts)


def _calls(item: Attributes, whole: bool) -> list[Attributes] | None:
    """The calls of a message. Some instrumentations number them with holes, which dropped attributes leave too."""
    calls = numbered(item, "message.tool_calls", holes=whole)
    return calls and [call for call in calls if any(key.startswith(_FUNCTION) for key in call)]


def _part(content: Attributes) -> Part:
    """A content with the prefix of its keys taken away is a part as APIs have it, but for the names of a few."""
    value = {key.removeprefix("message_content."): found for key, found in content.items()}
    match value.get("type"):
        case "text" if value.get("thought") is not True:
            text = value.get("text")
            return HIDDEN if text is None else text_part(text)
        case "text" | "reasoning" | "thinking" | "redacted_thinking" | "tool_use" | "tool_result":
            for key in ("input", "content"):
                value[key] = decoded(value.get(key))
            return part_of(value)
        case str(kind):
            return Part(f"[{kind}]")
        case _:
            return HIDDEN


def _has_choices(span: Span) -> bool:
    """Return whether several replies were asked for; else several output messages are items of one reply."""
    parameters = decoded(span.attributes.get("llm.invocation_parameters"))
    asked = parameters.get("n") if isinstance(parameters, dict) else None
    return isinstance(asked, int) and asked > 1
