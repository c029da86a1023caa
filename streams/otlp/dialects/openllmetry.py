"""OpenLLMetry's attributes `gen_ai.prompt.N.*` and `gen_ai.completion.N.*`, as its documentation has them.

Release 0.62 of its OpenAI instrumentation writes the semantic conventions instead; agents with older releases are still
about.
"""

from collections.abc import Sequence

from streams.events import Message
from streams.otlp.dialects.dialect import Chat
from streams.otlp.dialects.rendering import complete, decoded, numbered, structured
from streams.otlp.dialects.semantic_conventions import model_of
from streams.otlp.records import Attributes, LogRecord, Span


class OpenLLMetry:
    """Numbered prompts and completions."""

    conversation = "traceloop.association.properties.session_id"

    def recognises(self, span: Span) -> bool:
        return any(key.startswith("gen_ai.prompt.0.") for key in span.attributes)

    def read(self, span: Span, logs: Sequence[LogRecord]) -> Chat | None:
        seen, said = numbered(span.attributes, "gen_ai.prompt"), numbered(span.attributes, "gen_ai.completion")
        if not seen or not said:
            return None
        messages, action = complete(map(_message, seen)), _message({"role": "assistant", **said[0]})
        return Chat(messages, action, model_of(span)) if messages and action else None


def _message(item: Attributes) -> Message | None:
    content = item.get("content")
    blocks = decoded(content)
    calls = numbered(item, "tool_calls")
    if calls is None:
        return None
    return structured(
        {
            "role": item.get("role"),
            # Content in blocks is written as JSON; a text that happens to be JSON is a text.
            "content": blocks if _is_blocks(blocks) else content,
            "tool_calls": [{"name": call.get("name"), "arguments": call.get("arguments")} for call in calls],
        }
    )


def _is_blocks(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) and "type" in item for item in value)
