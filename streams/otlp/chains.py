"""Assignment of model calls to conversations: a trace holds one append-only conversation, or several. Pure.

An episode is an append-only conversation, so calls of sub-agents, of judges, or of an agent that rewrites its history
become episodes of their own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from streams.events import Message, spoken
from streams.otlp.absence import Absence, is_shortened, lacks_calls, why_absent
from streams.otlp.dialects import Chat, dialect_of, read_chat
from streams.otlp.dialects.semantic_conventions import has_instructions, may_lack_instructions, may_wrap_calls
from streams.otlp.records import LogRecord, Span

# Spans are anybody's: they may name each other as parents, or form a line without end.
_MAX_ANCESTORS = 32


@dataclass(frozen=True, slots=True)
class Call:
    """A span that is a model call, and what was said in it."""

    span: Span
    chat: Chat


@dataclass(frozen=True, slots=True)
class Chain:
    """Calls of which each continues the one before. `observations` came back between them."""

    calls: list[Call]
    observations: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AbsentCall:
    """A span that is a model call without content that can be read, and the reason."""

    span: Span
    reason: Absence


def model_calls(spans: Sequence[Span], logs: Iterable[LogRecord]) -> tuple[list[Call], list[AbsentCall]]:
    """The calls among the spans in order of their start, and those that have no content that can be read.

    A call within a call is the same call seen by another instrumentation: the outer one counts, unless only its
    messages make it one.
    """
    within: dict[tuple[str, str], list[LogRecord]] = {}
    for record in logs:
        within.setdefault((record.trace_key, record.span_id), []).append(record)
    calls: dict[tuple[str, str], Call] = {}
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
        elif span.trace_key in instructed and may_lack_instructions(span) and chat.messages[0].role != "system":
            absent[place] = AbsentCall(span, Absence.CUT_OFF)
        else:
            calls[place] = Call(span, chat)
    parents = {(span.trace_key, span.span_id): span.parent_id for span in spans}
    for around in {around for place in calls for around in ancestors(place, parents) if around != place}:
        absent.pop(around, None)
        if around in calls and may_wrap_calls(calls[around].span):
            del calls[around]
    lost = [call for place, call in absent.items() if not _is_within_another(place, calls, parents)]
    outer = [call for place, call in calls.items() if not _is_within_another(place, calls, parents)]
    return sorted(outer, key=lambda call: (call.span.start_ns, call.span.span_id)), lost


def chains(calls: Iterable[Call]) -> list[Chain]:
    """The append-only conversations that the calls form, in order of their first calls.

    A call continues another if it saw the same messages, then the other's reply, then something that is not a reply.
    Reasoning does not count: most agents send it back never, or only until the turn is over.
    """
    found: list[Chain] = []
    open_at: dict[tuple[tuple[Message, ...], str], Chain] = {}
    for call in calls:
        seen = spoken(call.chat.messages)
        replied = max((place for place, item in enumerate(seen) if item.role == "assistant"), default=len(seen))
        # Agents trim replies before they put them into the history; what they went on with is what was done.
        chain = open_at.pop((seen[:replied], seen[replied].content.strip()), None) if replied + 1 < len(seen) else None
        if chain is None:
            found.append(chain := Chain([call]))
        else:
            last = chain.calls[-1]
            action = last.chat.action.model_copy(update={"content": seen[replied].content})
            chain.calls[-1] = replace(last, chat=replace(last.chat, action=action))
            chain.observations.append("\n".join(item.content for item in seen[replied + 1 :]))
            chain.calls.append(call)
        open_at[seen, call.chat.action.content.strip()] = chain
    return found


def _is_within_another(
    place: tuple[str, str], calls: Mapping[tuple[str, str], Call], parents: Mapping[tuple[str, str], str]
) -> bool:
    return next((around != place for around in ancestors(place, parents) if around in calls), False)


def ancestors(place: tuple[str, str], parents: Mapping[tuple[str, str], str]) -> list[tuple[str, str]]:
    """The spans around the one at `place`, the nearest first. `parents` has the parent of each span, by its place."""
    trace, span = place
    found: list[tuple[str, str]] = []
    while len(found) < _MAX_ANCESTORS and (span := parents.get((trace, span), "")):
        found.append((trace, span))
    return found
