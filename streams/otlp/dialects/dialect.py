"""The interface of a dialect: one way in which instrumentations write a model call into telemetry."""

from collections.abc import Sequence
from typing import Protocol

from streams.calls.chat import Chat
from streams.otlp.records import LogRecord, Span


class Dialect(Protocol):
    """Reads the spans of one family of instrumentations. `conversation` is the attribute with a conversation's id."""

    conversation: str

    def recognises(self, span: Span) -> bool:
        """Return whether the span is a model call in this dialect."""

    def read(self, span: Span, logs: Sequence[LogRecord]) -> Chat | None:
        """The call that a recognised span is about; `logs` are those within the span, in order.

        None when messages or the reply are missing: content was not captured, or attributes were dropped.
        """
