"""OpenInference: `openinference.span.kind` and `llm.input_messages.N.message.*`.

https://arize-ai.github.io/openinference/spec/semantic_conventions.html, checked against
openinference-semantic-conventions 0.1.42, openinference-instrumentation-openai 0.1.66 and
openinference-instrumentation-openai-agents 2.6.0.
"""

from collections.abc import Sequence

from pydantic import JsonValue

from ratchet_client.messages import Messages, ToolCall
from streams.calls.chat import Chat
from streams.calls.json_values import mapping
from streams.otlp.dialects.parts import (
    HIDDEN,
    Part,
    Text,
    call_part,
    part_of,
    parts_of,
    quoted_tools,
    reasoning_part,
    text_part,
)
from streams.otlp.dialects.rendering import chat_of, choices_of, complete, messages_of, numbered, reply_of, role_of
from streams.otlp.dialects.texts import decoded
from streams.otlp.dialects.tools import offered_tools
from streams.otlp.records import Attributes, LogRecord, Span

_FUNCTION = "tool_call.function."
_KIND = "openinference.span.kind"
_SEEN, _SAID = "llm.input_messages", "llm.output_messages"
_MEDIA = ("image", "audio", "video", "document")


class OpenInference:
    """Spans of the kind `LLM`. Limits drop the kind first; then messages tell a model call."""

    conversation = "session.id"

    def recognises(self, span: Span) -> bool:
        if span.dropped_attributes and _KIND not in span.attributes:
            return any(key.startswith((f"{_SEEN}.", f"{_SAID}.")) for key in span.attributes)
        return span.attributes.get(_KIND) == "LLM"

    def read(self, span: Span, logs: Sequence[LogRecord]) -> Chat | None:
        whole = not span.dropped_attributes
        said = numbered(span.attributes, _SAID)
        if said is None:
            return None
        replies = (_messages({"message.role": "assistant", **item}, whole) for item in said)
        reply = reply_of(complete(replies, choices=_has_choices(span)) if said else _streamed(span.attributes))
        model = span.attributes.get("llm.model_name")
        tools = offered_tools(span.attributes, whole=whole)
        return Chat.of(_seen(span.attributes, whole), reply, model if isinstance(model, str) else None, tools)


def _seen(attributes: Attributes, whole: bool) -> Messages | None:
    """The messages that the model saw. In the Responses API, number 0 is that of the instructions, given or not."""
    found = numbered(attributes, _SEEN)
    if found is None and whole:
        first = {key: value for key, value in attributes.items() if key.startswith(f"{_SEEN}.0.")}
        if not first and (found := numbered({f"{_SEEN}.0.message": None, **attributes}, _SEEN)):
            found = found[1:]
        elif found is None:
            return _from_items(attributes, first)
    return complete(_messages(item, whole) for item in found) if found else None


def _from_items(attributes: Attributes, first: Attributes) -> Messages | None:
    """The messages of a request to the Responses API of which an item is missing: items of some types are left out."""
    request = decoded(attributes.get("input.value"))
    instructions = numbered(first, _SEEN) or []
    items = chat_of(request if isinstance(request, list) else mapping(request).get("input"))
    return items and complete((*(_messages(item, whole=True) for item in instructions), items))


def _streamed(attributes: Attributes) -> Messages | None:
    """The reply of openai-agents that was streamed by chat completions: the one place that has it is a response."""
    responses = decoded(attributes.get("output.value"))
    if not isinstance(responses, list) or len(responses) != 1 or mapping(responses[0]).get("object") != "response":
        return None
    return choices_of(mapping(responses[0]).get("output"))


def _messages(item: Attributes, whole: bool) -> Messages | None:
    """`whole` unless attributes were dropped: then one that is missing may have been there."""
    contents, calls = numbered(item, "message.contents"), _calls(item, whole)
    if contents is None or calls is None:
        return None
    parts: list[Part] = []
    if item.get("message.reasoning_content"):
        parts.append(reasoning_part(item["message.reasoning_content"]))
    listed = [_part(found) for found in contents]
    if (content := item.get("message.content")) is not None and not _repeats(content, listed):
        blocks = quoted_tools(content)
        parts += [text_part(content)] if blocks is None else parts_of(blocks)
    parts += listed
    if not any(isinstance(part, ToolCall) for part in parts):
        parts += [
            call_part(call.get(f"{_FUNCTION}name"), call.get(f"{_FUNCTION}arguments"), call.get("tool_call.id"))
            for call in calls
        ]
    role, name = item.get("message.role"), item.get("message.name")
    called = item.get("message.function_call_name")
    if called is not None and not calls and role != "function":
        parts.append(call_part(called, item.get("message.function_call_arguments_json")))
    if not whole and (not parts or any(f"{_FUNCTION}arguments" not in call for call in calls)):
        return None
    call_id = item.get("message.tool_call_id")
    if role == "function" and name is None:
        name = called
    return messages_of(role_of(role, item.get("message.channel")), parts, call_id=call_id, name=name)


def _repeats(content: JsonValue, parts: Sequence[Part]) -> bool:
    """Return whether the content says again what is in the parts, as that of openai-agents' replies does."""
    texts = [part.text for part in parts if isinstance(part, Text)]
    return content in (*texts, "".join(texts), "\n".join(texts))


def _calls(item: Attributes, whole: bool) -> list[Attributes] | None:
    """The calls of a message. Some instrumentations number them with holes, which dropped attributes leave too."""
    calls = numbered(item, "message.tool_calls", holes=whole)
    return calls and [call for call in calls if any(key.startswith(_FUNCTION) for key in call)]


def _part(content: Attributes) -> Part:
    """A content with the prefix of its keys taken away is a part as APIs have it, but for the names of a few."""
    value = {key.removeprefix("message_content."): found for key, found in content.items()}
    kind = value.get("type")
    if kind == "text" and value.get("thought") is not True:
        text = value.get("text")
        return HIDDEN if text is None else text_part(text)
    if not isinstance(kind, str):
        return HIDDEN
    if kind in _MEDIA:
        prefixes = (f"{kind}.{kind}.", f"{kind}.")
        within = next((prefix for prefix in prefixes if any(key.startswith(prefix) for key in value)), "")
        value = {key.removeprefix(within): found for key, found in value.items()}
    for key in ("input", "content"):
        value[key] = decoded(value.get(key))
    return part_of(value)


def _has_choices(span: Span) -> bool:
    """Return whether several replies were asked for; else several output messages are items of one reply."""
    parameters = decoded(span.attributes.get("llm.invocation_parameters"))
    asked = parameters.get("n") if isinstance(parameters, dict) else None
    return isinstance(asked, int) and asked > 1
