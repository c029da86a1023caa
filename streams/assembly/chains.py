"""Assignment of model calls to conversations: a trace holds one append-only conversation, or several. Pure.

An episode is an append-only conversation, so calls of sub-agents, of judges, or of an agent that rewrites its history
become episodes of their own.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from streams.calls.json_values import compact
from streams.messages import Message, Messages
from streams.otlp.dialects.texts import decoded
from streams.otlp.model_calls import SpanCall


@dataclass(frozen=True, slots=True)
class Chain:
    """Calls of which each continues the one before. `observations` came back between them."""

    calls: list[SpanCall]
    observations: list[Messages] = field(default_factory=list)


def chains(calls: Iterable[SpanCall]) -> list[Chain]:
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
