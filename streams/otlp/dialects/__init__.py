"""The dialects of GenAI telemetry that are understood, and the order in which they are tried."""

from streams.otlp.dialects.dialect import Chat, Dialect
from streams.otlp.dialects.openinference import OpenInference
from streams.otlp.dialects.openllmetry import OpenLLMetry
from streams.otlp.dialects.semantic_conventions import SemanticConventions
from streams.otlp.records import Span

# OpenLLMetry's spans carry attributes of the conventions as well, so it is asked before them.
DIALECTS: tuple[Dialect, ...] = (OpenInference(), OpenLLMetry(), SemanticConventions())

__all__ = ["DIALECTS", "Chat", "Dialect", "dialect_of"]


def dialect_of(span: Span) -> Dialect | None:
    """The dialect in which the span is a model call; None when it is none."""
    return next((dialect for dialect in DIALECTS if dialect.recognises(span)), None)
