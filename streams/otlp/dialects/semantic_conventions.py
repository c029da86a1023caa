"""The GenAI semantic conventions of OpenTelemetry, 1.27 to 1.42, all of which are in development.

Checked against opentelemetry-instrumentation-openai 0.62.4.

Content is looked for where the releases put it, newest first: attributes of the span; the event
`gen_ai.client.inference.operation.details` with the same attributes; one event per message (1.28 to 1.36); the events
`gen_ai.content.*` (1.27). Events are log records within the span or events of the span itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from ratchet_client.messages import Messages, Tools
from streams.calls.chat import Chat
from streams.otlp.dialects.parts import quoted_tools
from streams.otlp.dialects.rendering import chat_of, choices_of, complete, reply_of, structured
from streams.otlp.dialects.texts import decoded
from streams.otlp.dialects.tools import offered_tools
from streams.otlp.records import Attributes, LogRecord, Span

_OPERATIONS = frozenset({"chat", "generate_content"})
# Any other operation with messages is a model call too: instrumentations name it as their library does.
NO_CHATS = frozenset(
    {
        *("embeddings", "embedding", "aembedding", "rerank", "retrieval", "transcription", "moderation", "speech"),
        *("execute_tool", "invoke_agent", "create_agent", "invoke_workflow", "image_generation"),
    }
)
_OPERATION = "gen_ai.operation.name"
_INSTRUCTIONS = "gen_ai.system_instructions"
_CONTENT = ("gen_ai.input.messages", "gen_ai.output.messages")
# What a reply leaves on the span of a model call after the name of its operation.
_TRACES = (*_CONTENT, "gen_ai.response.", "gen_ai.usage.")
# A span with one of these has the name of its operation, or is of another dialect.
_OTHER_OPERATIONS = (_OPERATION, "openinference.span.kind", "traceloop.span.kind", "ai.operationId")
_MESSAGE_EVENTS = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
_CHOICE_EVENT = "gen_ai.choice"

_Content = tuple[Messages | None, Messages | None]


@dataclass(frozen=True, slots=True)
class _Event:
    name: str
    fields: Mapping[str, JsonValue]


class SemanticConventions:
    """`gen_ai.*` as the conventions have it; OpenLLMetry emits them as well."""

    conversation = "gen_ai.conversation.id"

    def recognises(self, span: Span) -> bool:
        operation = span.attributes.get(_OPERATION)
        if _lost_its_operation(span):
            return any(key.startswith(_TRACES) for key in span.attributes)
        if not isinstance(operation, str) or operation in NO_CHATS:
            return False
        return operation in _OPERATIONS or all(name in span.attributes for name in _CONTENT)

    def read(self, span: Span, logs: Sequence[LogRecord]) -> Chat | None:
        if _lost_its_operation(span):
            return None  # it may be an agent's span, which has messages as well
        events = [_Event(event.name, event.attributes) for event in span.events]
        events += [_Event(record.name, _fields(record)) for record in logs]
        for source in (span.attributes, *(event.fields for event in events if event.name.endswith(".details"))):
            seen, said = _from_attributes(source)
            if (chat := Chat.of(seen, reply_of(said), model_of(span), _tools(span, source))) is not None:
                return chat
        if span.dropped_events:
            return None
        for seen, said in (_from_messages(events), _from_content_events(events)):
            if (chat := Chat.of(seen, reply_of(said), model_of(span), _tools(span, {}))) is not None:
                return chat
        return None


def has_instructions(span: Span) -> bool:
    """Return whether the model's instructions stand in an attribute of their own."""
    return _INSTRUCTIONS in span.attributes


def may_lack_instructions(span: Span) -> bool:
    """Return whether a limit on the number of attributes may have dropped the instructions, and not the messages."""
    return bool(span.dropped_attributes) and _CONTENT[0] in span.attributes and not has_instructions(span)


def may_wrap_calls(span: Span) -> bool:
    """Return whether the span is a model call by its messages alone; an agent's span may have messages as well."""
    operation = span.attributes.get(_OPERATION)
    return isinstance(operation, str) and operation not in _OPERATIONS


def model_of(span: Span) -> str | None:
    """The model that replied, else the one that was asked for."""
    for name in ("gen_ai.response.model", "gen_ai.request.model"):
        value = span.attributes.get(name)
        if isinstance(value, str) and value:
            return value
    return None


def _tools(span: Span, source: Mapping[str, JsonValue]) -> Tools | None:
    return offered_tools({**span.attributes, **source}, whole=not span.dropped_attributes)


def _lost_its_operation(span: Span) -> bool:
    return bool(span.dropped_attributes) and not any(key in span.attributes for key in _OTHER_OPERATIONS)


def _fields(record: LogRecord) -> Mapping[str, JsonValue]:
    return record.attributes | record.body if isinstance(record.body, dict) else record.attributes


def _from_attributes(attributes: Mapping[str, JsonValue]) -> _Content:
    seen = chat_of(attributes.get("gen_ai.input.messages"))
    instructions = decoded(attributes.get(_INSTRUCTIONS))
    if seen is not None and instructions:
        seen = complete((structured({"parts": instructions}, role="system"), seen))
    return seen, choices_of(attributes.get("gen_ai.output.messages"))


def _from_messages(events: Sequence[_Event]) -> _Content:
    seen = complete(
        structured(_readable(event.fields), role=_MESSAGE_EVENTS[event.name])
        for event in events
        if event.name in _MESSAGE_EVENTS
    )
    choices = (_choice(_readable(event.fields)) for event in events if event.name == _CHOICE_EVENT)
    return seen, complete(choices, choices=True)


def _choice(fields: Attributes) -> Messages | None:
    inner = decoded(fields.get("message"))
    calls = fields.get("tool_calls")
    if isinstance(inner, str):
        inner = {"content": inner}
    if not isinstance(inner, dict):
        return None
    return structured(inner | ({"tool_calls": calls} if calls else {}), role="assistant")


def _readable(fields: Mapping[str, JsonValue]) -> Attributes:
    # Attributes of a span's event hold lists and objects as JSON.
    read = {key: decoded(value) if key in ("tool_calls", "message") else value for key, value in fields.items()}
    if (blocks := quoted_tools(fields.get("content"))) is not None:
        read["content"] = blocks
    return read


def _from_content_events(events: Sequence[_Event]) -> _Content:
    seen: Messages | None = None
    said: Messages | None = None
    for event in events:
        if event.name == "gen_ai.content.prompt":
            seen = chat_of(event.fields.get("gen_ai.prompt"))
        elif event.name == "gen_ai.content.completion":
            said = choices_of(event.fields.get("gen_ai.completion"))
    return seen, said
