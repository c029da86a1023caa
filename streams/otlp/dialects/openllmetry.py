"""OpenLLMetry's attributes `gen_ai.prompt.N.*` and `gen_ai.completion.N.*`, as its documentation has them.

Release 0.62 of its OpenAI instrumentation writes the semantic conventions instead; agents with older releases are still
about, and its instrumentation of Anthropic wrote content blocks as JSON.
"""

import re
from collections.abc import Sequence

from pydantic import JsonValue

from ratchet_client.messages import Messages
from streams.calls.chat import Chat
from streams.otlp.dialects.blocks import is_blocks
from streams.otlp.dialects.rendering import complete, numbered, reply_of, structured
from streams.otlp.dialects.semantic_conventions import model_of
from streams.otlp.dialects.texts import decoded, is_cut
from streams.otlp.dialects.tools import offered_tools
from streams.otlp.records import Attributes, LogRecord, Span

# Any of them: limits drop the first one first.
_NUMBERED = re.compile(r"gen_ai\.(?:prompt|completion)\.[0-9]+\.")
_REASONING = ("reasoning", "reasoning_content", "thinking")


class OpenLLMetry:
    """Numbered prompts and completions."""

    conversation = "traceloop.association.properties.session_id"

    def recognises(self, span: Span) -> bool:
        return any(_NUMBERED.match(key) for key in span.attributes)

    def read(self, span: Span, logs: Sequence[LogRecord]) -> Chat | None:
        seen, said = numbered(span.attributes, "gen_ai.prompt"), numbered(span.attributes, "gen_ai.completion")
        if not seen or not said:
            return None
        whole = not span.dropped_attributes
        messages = complete(_message(item, whole) for item in seen)
        reply = reply_of(complete((_message({"role": "assistant", **item}, whole) for item in said), choices=True))
        return Chat.of(messages, reply, model_of(span), offered_tools(span.attributes, whole=whole))


def _message(item: Attributes, whole: bool) -> Messages | None:
    """`whole` unless attributes were dropped: then one that is missing may have been there."""
    calls = numbered(item, "tool_calls")
    if calls is None or not (whole or _has_everything(item, calls)):
        return None
    content = item.get("content")
    return structured(
        {
            "role": item.get("role"),
            "channel": item.get("channel"),
            "content": _content(content),
            "tool_calls": [{key: call.get(key) for key in ("id", "name", "arguments")} for call in calls],
            "tool_call_id": item.get("tool_call_id"),
            "reasoning_content": next((item[name] for name in _REASONING if item.get(name)), None),
        }
    )


def _content(content: JsonValue) -> JsonValue:
    # Content in blocks is written as JSON; a text that happens to be JSON is a text.
    blocks = decoded(content)
    if is_blocks(blocks):
        return blocks
    if isinstance(content, str) and content.lstrip().startswith('[{"') and is_cut(content):
        return []  # nothing that can be read
    return content


def _has_everything(item: Attributes, calls: Sequence[Attributes]) -> bool:
    return ("content" in item or bool(calls)) and all("arguments" in call for call in calls)
