"""Model calls whose content is missing, and the reasons: hidden, cut off by a limit, or never captured. Pure.

An instrumentation that hides content leaves a mask, or a message without its text; limits of the OpenTelemetry SDK on
the number of attributes and on their length leave a part of it.
"""

from collections.abc import Iterable, Sequence

from pydantic import JsonValue

from ratchet_client.messages import Message
from streams.calls.absence import Absence
from streams.otlp.dialects.texts import decoded, is_cut, is_mask
from streams.otlp.dialects.tools import ATTRIBUTES as _OFFERED
from streams.otlp.records import Attributes, LogRecord, Span

_SEEN = (
    *("gen_ai.input.messages", "gen_ai.prompt", "llm.input_messages.", "ai.prompt"),
    *("gen_ai.system.message", "gen_ai.user.message", "gen_ai.tool.message", "gen_ai.assistant.message"),
)
_SAID = (
    *("gen_ai.output.messages", "gen_ai.completion", "llm.output_messages.", "gen_ai.choice"),
    *("ai.response.text", "ai.response.toolCalls"),
)
_CONTENT = (*_SEEN, *_SAID)
_FINISH_REASONS = ("gen_ai.response.finish_reasons", "gen_ai.completion.0.finish_reason", "ai.response.finishReason")
_CALLED_TOOLS = frozenset({"tool_calls", "tool_call", "tool_use", "tool-calls"})


def is_shortened(span: Span) -> bool:
    """Return whether a limit on the length of values cut off content of the span.

    Such a limit shows where it cut JSON: no value is longer than that one, and content as long as it was cut as well.
    """
    texts = [(key, value) for key, value in span.attributes.items() if isinstance(value, str)]
    limit = max((len(value) for _, value in texts), default=0)
    longest = [(key, value) for key, value in texts if len(value) == limit]
    return any(key.startswith(_CONTENT) for key, _ in longest) and any(is_cut(value) for _, value in longest)


def lacks_calls(span: Span, reply: Message) -> bool:
    """Return whether the model is said to have stopped in order to call tools, and the reply has no calls."""
    if reply.calls or not reply.is_readable:
        return False
    reasons = [decoded(span.attributes.get(name)) for name in _FINISH_REASONS]
    firsts = [reason[0] if isinstance(reason, list) and reason else reason for reason in reasons]
    return any(isinstance(reason, str) and reason in _CALLED_TOOLS for reason in firsts)


def why_absent(span: Span, logs: Sequence[LogRecord]) -> Absence:
    """The reason for which the content of a model call could not be read; `logs` are those within the span."""
    named: list[tuple[str, Attributes]] = [("", span.attributes)]
    named += [(event.name, event.attributes) for event in span.events]
    named += [(record.name, record.attributes | {"body": record.body}) for record in logs]
    if any(_has_mask(decoded(value)) for _, attributes in named for value in attributes.values()):
        return Absence.MASKED
    if span.dropped_attributes or span.dropped_events or is_shortened(span):
        return Absence.CUT_OFF
    keys = [key for name, attributes in named for key in (name, *attributes, *_keys(attributes.get("body")))]
    seen, said = _any_of(keys, _SEEN), _any_of(keys, _SAID)
    if not said and span.failed:
        return Absence.FAILED
    if not seen and not said:
        return Absence.NOT_CAPTURED
    contents = (
        value for _, attributes in named for key, value in attributes.items() if key.startswith((*_CONTENT, *_OFFERED))
    )
    return Absence.CUT_OFF if any(isinstance(v, str) and is_cut(v) for v in contents) else Absence.INCOMPLETE


def _any_of(keys: Iterable[str], prefixes: tuple[str, ...]) -> bool:
    return any(key.startswith(prefixes) for key in keys)


def _keys(value: JsonValue) -> Iterable[str]:
    return value if isinstance(value, dict) else ()


def _has_mask(value: JsonValue) -> bool:
    if isinstance(value, str):
        return is_mask(value)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_has_mask(item) for item in inner)
