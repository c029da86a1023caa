"""Assignment of model calls to conversations: a trace holds one append-only conversation, or several. Pure.

An episode is an append-only conversation, so calls of sub-agents, of judges, or of an agent that rewrites its history
become episodes of their own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from streams.events import Message
from streams.otlp.dialects import Chat, dialect_of
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


def model_calls(spans: Sequence[Span], logs: Iterable[LogRecord]) -> tuple[list[Call], int]:
    """The calls among the spans in order of their start, and how many have no content that can be read.

    A call within a call is the same call seen by another instrumentation: the outer one counts.
    """
    within: dict[tuple[str, str], list[LogRecord]] = {}
    for record in logs:
        within.setdefault((record.trace_key, record.span_id), []).append(record)
    calls: dict[tuple[str, str], Call] = {}
    unreadable = 0
    for span in spans:
        dialect = dialect_of(span)
        if dialect is None:
            continue
        place = (span.trace_key, span.span_id)
        chat = dialect.read(span, sorted(within.get(place, ()), key=lambda record: record.time_ns))
        if chat is None or not chat.messages:
            unreadable += 1
        else:
            calls[place] = Call(span, chat)
    parents = {(span.trace_key, span.span_id): span.parent_id for span in spans}
    outer = [call for place, call in calls.items() if not _is_within_another(place, calls, parents)]
    return sorted(outer, key=lambda call: (call.span.start_ns, call.span.span_id)), unreadable


def chains(calls: Iterable[Call]) -> list[Chain]:
    """The append-only conversations that the calls form, in order of their first calls.

    A call continues another if it saw the same messages, then the other's reply, then something that is not a reply.
    """
    found: list[Chain] = []
    open_at: dict[tuple[tuple[Message, ...], str], Chain] = {}
    for call in calls:
        seen = call.chat.messages
        replied = max((place for place, item in enumerate(seen) if item.role == "assistant"), default=len(seen))
        # Agents trim replies before they put them into the history; what they went on with is what was done.
        chain = open_at.pop((seen[:replied], seen[replied].content.strip()), None) if replied + 1 < len(seen) else None
        if chain is None:
            found.append(chain := Chain([call]))
        else:
            last = chain.calls[-1]
            chain.calls[-1] = replace(last, chat=replace(last.chat, action=seen[replied]))
            chain.observations.append("\n".join(item.content for item in seen[replied + 1 :]))
            chain.calls.append(call)
        open_at[seen, call.chat.action.content.strip()] = chain
    return found


def _is_within_another(
    place: tuple[str, str], calls: Mapping[tuple[str, str], Call], parents: Mapping[tuple[str, str], str]
) -> bool:
    trace, span = place
    for _ in range(_MAX_ANCESTORS):
        span = parents.get((trace, span), "")
        if (trace, span) in calls:
            return (trace, span) != place
    return False
