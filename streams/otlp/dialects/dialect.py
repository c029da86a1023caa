"""The interface of a dialect: one way in which instrumentations write a model call into telemetry."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from streams.messages import Message, Messages, Tools
from streams.otlp.dialects.call_ids import with_call_ids
from streams.otlp.records import LogRecord, Span


@dataclass(frozen=True, slots=True)
class Chat:
    """One model call: the messages that the model saw, its reply, the name of the model that replied, and its tools.

    `tools` is None where definitions of tools were hidden or cut off.
    """

    messages: Messages
    action: Message
    model: str | None
    tools: Tools | None = ()

    @classmethod
    def of(
        cls, seen: Messages | None, reply: Message | None, model: str | None, tools: Tools | None = ()
    ) -> Self | None:
        """The call with an id for each call of a tool; None when there are no messages or no reply."""
        if not seen or reply is None:
            return None
        *messages, action = with_call_ids((*seen, reply))
        return cls(tuple(messages), action, model, tools)


class Dialect(Protocol):
    """Reads the spans of one family of instrumentations. `conversation` is the attribute with a conversation's id."""

    conversation: str

    def recognises(self, span: Span) -> bool:
        """Return whether the span is a model call in this dialect."""

    def read(self, span: Span, logs: Sequence[LogRecord]) -> Chat | None:
        """The call that a recognised span is about; `logs` are those within the span, in order.

        None when messages or the reply are missing: content was not captured, or attributes were dropped.
        """
