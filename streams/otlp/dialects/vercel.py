"""The Vercel AI SDK: `ai.prompt.messages` and `ai.response.*` of the spans around each request to a model.

https://ai-sdk.dev/docs/ai-sdk-core/telemetry, releases 4 to 6, as documented; not run. Its spans `ai.generateText` and
`ai.streamText` wrap several requests and are not model calls themselves.
"""

from collections.abc import Sequence

from pydantic import JsonValue

from ratchet_client.messages import Messages
from streams.calls.chat import Chat
from streams.otlp.dialects.parts import HIDDEN, Part, call_part, reasoning_part, text_part
from streams.otlp.dialects.rendering import chat_of, complete, messages_of, reply_of
from streams.otlp.dialects.texts import decoded
from streams.otlp.dialects.tools import offered_tools
from streams.otlp.records import Attributes, LogRecord, Span

_REQUESTS = ("ai.generateText.doGenerate", "ai.streamText.doStream")
_MODELS = ("ai.response.model", "gen_ai.response.model", "ai.model.id", "gen_ai.request.model")


class VercelAI:
    """Spans of `generateText` and `streamText`, one for each step of theirs."""

    conversation = "ai.telemetry.metadata.sessionId"

    def recognises(self, span: Span) -> bool:
        operation = span.attributes.get("ai.operationId")
        return (operation if isinstance(operation, str) else span.name) in _REQUESTS

    def read(self, span: Span, logs: Sequence[LogRecord]) -> Chat | None:
        prompt = span.attributes.get("ai.prompt.messages")
        seen = _prompt(span.attributes.get("ai.prompt")) if prompt is None else chat_of(prompt)
        reply = reply_of(complete([messages_of("assistant", _reply(span.attributes))]))
        model = next((found for name in _MODELS if isinstance(found := span.attributes.get(name), str) and found), None)
        tools = offered_tools(span.attributes, whole=not span.dropped_attributes)
        return Chat.of(seen, reply, model, tools)


def _prompt(value: JsonValue) -> Messages | None:
    """The prompt as the caller gave it: a system text, and a text or messages."""
    prompt = decoded(value)
    if not isinstance(prompt, dict):
        return None
    messages = prompt.get("messages", prompt.get("prompt"))
    listed: list[JsonValue] = messages if isinstance(messages, list) else [{"role": "user", "content": messages}]
    system: list[JsonValue] = [{"role": "system", "content": text}] if (text := prompt.get("system")) else []
    return chat_of(system + listed)


def _reply(attributes: Attributes) -> list[Part]:
    parts: list[Part] = [reasoning_part(found)] if (found := attributes.get("ai.response.reasoning")) else []
    text, calls = attributes.get("ai.response.text"), decoded(attributes.get("ai.response.toolCalls"))
    if text is not None:
        parts.append(text_part(text))
    if isinstance(calls, list):
        parts += [_call(call) for call in calls]
    elif calls is not None:
        parts.append(HIDDEN)  # a mask, or JSON that was cut off
    return parts


def _call(value: JsonValue) -> Part:
    if not isinstance(value, dict):
        return HIDDEN
    return call_part(value.get("toolName"), value.get("input", value.get("args")), value.get("toolCallId"))
