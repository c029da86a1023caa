"""OpenInference: `openinference.span.kind` and `llm.input_messages.N.message.*`.

https://arize-ai.github.io/openinference/spec/semantic_conventions.html, checked against
openinference-semantic-conventions 0.1.42 and openinference-instrumentation-openai 0.1.66.
"""

from collections.abc import Sequence

from pydantic import JsonValue

from streams.events import Message
from streams.otlp.dialects.dialect import Chat
from streams.otlp.dialects.rendering import complete, message, numbered, tool_call
from streams.otlp.records import Attributes, LogRecord, Span


class OpenInference:
    """Spans of the kind `LLM`."""

    conversation = "session.id"

    def recognises(self, span: Span) -> bool:
        return span.attributes.get("openinference.span.kind") == "LLM"

    def read(self, span: Span, logs: Sequence[LogRecord]) -> Chat | None:
        seen = numbered(span.attributes, "llm.input_messages")
        said = numbered(span.attributes, "llm.output_messages")
        if not seen or not said:
            return None
        messages, action = complete(map(_message, seen)), _message({"message.role": "assistant", **said[0]})
        model = span.attributes.get("llm.model_name")
        return Chat(messages, action, model if isinstance(model, str) else None) if messages and action else None


def _message(item: Attributes) -> Message | None:
    contents, calls = numbered(item, "message.contents"), numbered(item, "message.tool_calls")
    if contents is None or calls is None:
        return None
    parts = [_text(item.get("message.content")), *(_part(content) for content in contents)]
    for call in calls:
        parts.append(tool_call(call.get("tool_call.function.name"), call.get("tool_call.function.arguments")))
    return message(item.get("message.role"), parts)


def _part(content: Attributes) -> str:
    kind = content.get("message_content.type")
    return _text(content.get("message_content.text")) if kind == "text" else f"[{kind}]"


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else ""
