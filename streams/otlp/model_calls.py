"""The model calls among the spans of a trace: which spans are one, and what was said in them. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from streams.calls.absence import Absence
from streams.calls.chat import Chat
from streams.otlp.absence import is_shortened, lacks_calls, why_absent
from streams.otlp.dialects import dialect_of, read_chat
from streams.otlp.dialects.semantic_conventions import has_instructions, may_lack_instructions, may_wrap_calls
from streams.otlp.records import LogRecord, Span

# Spans are anybody's: they may name each other as parents, or form a line without end.
_MAX_ANCESTORS = 32


@dataclass(frozen=True, slots=True)
class SpanCall:
    """A span that is a model call, and what was said in it."""

    span: Span
    chat: Chat


@dataclass(frozen=True, slots=True)
class AbsentCall:
    """A span that is a model call without content that can be read, and the reason."""

    span: Span
    reason: Absence


def model_calls(spans: Sequence[Span], logs: Iterable[LogRecord]) -> tuple[list[SpanCall], list[AbsentCall]]:
    """The calls among the spans in order of their start, and those that have no content that can be read.

    A call of which only the tools that it was offered cannot be read is in both. A call within a call is the same call
    seen by another instrumentation: the outer one counts, unless only its messages make it one.
    """
    within: dict[tuple[str, str], list[LogRecord]] = {}
    for record in logs:
        within.setdefault((record.trace_key, record.span_id), []).append(record)
    calls: dict[tuple[str, str], SpanCall] = {}
    absent: dict[tuple[str, str], AbsentCall] = {}
    instructed = {span.trace_key for span in spans if has_instructions(span)}
    for span in spans:
        if dialect_of(span) is None:
            continue
        place = (span.trace_key, span.span_id)
        own = sorted(within.get(place, ()), key=lambda record: record.time_ns)
        chat = None if is_shortened(span) else read_chat(span, own)
        if chat is None or lacks_calls(span, chat.action):
            absent[place] = AbsentCall(span, why_absent(span, own))
        elif span.trace_key in instructed and may_lack_instructions(span) and not _is_instructed(chat):
            absent[place] = AbsentCall(span, Absence.CUT_OFF)
        else:
            calls[place] = SpanCall(span, chat)
            if chat.tools is None:
                absent[place] = AbsentCall(span, why_absent(span, own))
    parents = {(span.trace_key, span.span_id): span.parent_id for span in spans}
    for around in {around for place in calls for around in ancestors(place, parents) if around != place}:
        absent.pop(around, None)
        if around in calls and may_wrap_calls(calls[around].span):
            del calls[around]
    lost = [call for place, call in absent.items() if not _is_within_another(place, calls, parents)]
    outer = [call for place, call in calls.items() if not _is_within_another(place, calls, parents)]
    return sorted(outer, key=lambda call: (call.span.start_ns, call.span.span_id)), lost


def _is_instructed(chat: Chat) -> bool:
    return chat.messages[0].role in ("system", "developer")


def _is_within_another(
    place: tuple[str, str], calls: Mapping[tuple[str, str], SpanCall], parents: Mapping[tuple[str, str], str]
) -> bool:
    return next((around != place for around in ancestors(place, parents) if around in calls), False)


def ancestors(place: tuple[str, str], parents: Mapping[tuple[str, str], str]) -> list[tuple[str, str]]:
    """The spans around the one at `place`, the nearest first. `parents` has the parent of each span, by its place."""
    trace, span = place
    found: list[tuple[str, str]] = []
    while len(found) < _MAX_ANCESTORS and (span := parents.get((trace, span), "")):
        found.append((trace, span))
    return found
