"""The dialects of GenAI telemetry that are understood, and the order in which they are tried."""

from collections.abc import Sequence

from streams.calls.chat import Chat
from streams.otlp.dialects.dialect import Dialect
from streams.otlp.dialects.openinference import OpenInference
from streams.otlp.dialects.openllmetry import OpenLLMetry
from streams.otlp.dialects.semantic_conventions import NO_CHATS, SemanticConventions
from streams.otlp.dialects.vercel import VercelAI
from streams.otlp.records import LogRecord, Span

# Spans of the others carry attributes of the conventions as well, so these are asked last.
DIALECTS: tuple[Dialect, ...] = (OpenInference(), OpenLLMetry(), VercelAI(), SemanticConventions())

__all__ = ["DIALECTS", "NO_CHATS", "Chat", "Dialect", "dialect_of", "read_chat"]


def dialect_of(span: Span) -> Dialect | None:
    """The dialect in which the span is a model call; None when it is none."""
    return next((dialect for dialect in DIALECTS if dialect.recognises(span)), None)


def read_chat(span: Span, logs: Sequence[LogRecord]) -> Chat | None:
    """The model call that the span is, in the first dialect in which it can be read; None when there is none."""
    for dialect in DIALECTS:
        if dialect.recognises(span) and (chat := dialect.read(span, logs)) is not None:
            return chat
    return None
