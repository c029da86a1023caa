"""Assignment of model calls to conversations: a trace holds one append-only conversation, or several. Pure.

An episode is an append-only conversation, so calls of sub-agents, of judges, or of an agent that rewrites its history
become episodes of their own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from streams.calls.absence import Absence
from streams.calls.json_values import compact
from streams.messages import Message, Messages
from streams.otlp.absence import is_shortened, lacks_calls, why_absent
from streams.otlp.dialects import Chat, dialect_of, read_chat
from streams.otlp.dialects.semantic_conventions import has_instructions, may_lack_instructions, may_wrap_calls
from streams.otlp.dialects.texts import decoded
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
    observations: list[Messages] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AbsentCall:
    """A span that is a model call without content that can be read, and the reason."""

    span: Span
    reason: Absence


def model_calls(spans: Sequence[Span], logs: Iterable[LogRecord]) -> tuple[list[Call], list[AbsentCall]]:
    """The calls among the spans in order of their start, and those that have no content that can be read.

    A call of which only the tools that it was offered cannot be read is in both. A call within a call is the same call
    seen by another instrumentation: the outer one counts, unless only its messages make it one.
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
        elif span.trace_key in instructed and may_lack_instructions(span) and not _is_instructed(chat):
            absent[place] = AbsentCall(span, Absence.CUT_OFF)
        else:
            calls[place] = Call(span, chat)
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


def chains(calls: Iterable[Call]) -> list[Chain]:
    """The append-only conversations that the calls form, in order of their first calls.

    A call continues another if it saw the same messages, then the other's reply, then something that is not a reply.
    Reasoning does not count: most agents send it back never, or only until the turn is over.
    """
    found: list[Chain] = []
    open_at: dict[tuple[object, object], Chain] = {}
    for call in calls:
        messages = call.chat.messages
        seen = tuple(_as_seen(message) for message in messages)
        replied = max((place for place, item in enumerate(messages) if item.role == "assistant"), default=len(seen))
        chain = open_at.pop((seen[:replied], _as_said(messages[replied])), None) if replied + 1 < len(seen) else None
        if chain is None:
            found.append(chain := Chain([call]))
        else:
            # Agents trim replies, and rewrite arguments, before they put them into the history; instrumentations
            # lose ids of calls in one of the two. What they went on with is what was done.
            last, history = chain.calls[-1], messages[replied]
            told = {"content": history.content, "tool_calls": history.tool_calls}
            chain.calls[-1] = replace(last, chat=replace(last.chat, action=last.chat.action.model_copy(update=told)))
            chain.observations.append(messages[replied + 1 :])
            chain.calls.append(call)
        open_at[seen, _as_said(call.chat.action)] = chain
    return found


def _as_seen(message: Message) -> tuple[object, ...]:
    """What a model saw of a message: all but its reasoning and its annotations."""
    ids = tuple(call.id for call in message.calls)
    content = message.content if _has_media(message) else message.text
    return (message.role, message.tool_call_id, ids, content, _calls(message))


def _as_said(reply: Message) -> tuple[object, ...]:
    """What a reply says and calls, the same for the reply itself and for it in a history."""
    return (reply.content if _has_media(reply) else reply.text.strip(), _calls(reply))


def _calls(message: Message) -> tuple[object, ...]:
    return tuple(
        (call.function.name, _same_json(call.function.arguments)) if call.function is not None else call.type
        for call in message.calls
    )


def _has_media(message: Message) -> bool:
    return isinstance(message.content, tuple) and any(part.text is None for part in message.content)


def _same_json(text: str) -> str:
    """The text, or another of the same JSON value; no arguments are an empty object."""
    value = decoded(text or "{}")
    return text if isinstance(value, str) else compact(value, sort_keys=True)


def _is_instructed(chat: Chat) -> bool:
    return chat.messages[0].role in ("system", "developer")


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
