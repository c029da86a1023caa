"""Spans that look like model calls in a dialect that is not understood, by name, so that their loss is seen. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping

from streams.otlp.dialects import NO_CHATS, dialect_of
from streams.otlp.model_calls import ancestors
from streams.otlp.records import Span

_SIGNS = (
    *(
        "gen_ai.",
        "llm.",
        "ai.",
        "langsmith.",
        "langfuse.",
        "traceloop.",
        "openinference.",
        "input.value",
        "output.value",
    ),
    *("lk.", "mlflow.", "pydantic_ai.", "logfire.", "weave.", "llamaindex.", "langchain.", "litellm.", "dspy."),
)
# Set on spans of any kind, to say where they belong.
_CONTEXT = (
    *("gen_ai.conversation.", "gen_ai.agent.", "gen_ai.tool.", "gen_ai.evaluation.", "gen_ai.data_source."),
    *("traceloop.association.", "traceloop.workflow.", "traceloop.entity.", "traceloop.prompt.", "logfire."),
    *("ai.telemetry.", "langfuse.user.", "langfuse.session.", "langfuse.trace.", "langfuse.internal.", "llm.graph."),
    *("langfuse.environment", "langfuse.release", "langfuse.version", "langsmith.trace.", "langsmith.metadata."),
)
# Attributes that name the operation of a span, and its values that are no model calls.
_OPERATIONS = (
    *("gen_ai.operation.name", "ai.operationId", "openinference.span.kind", "langfuse.observation.type"),
    *("langsmith.span.kind", "traceloop.span.kind", "mlflow.spanType", "llm.request.type"),
)
_OTHER_KINDS = frozenset(
    {
        *("agent", "chain", "tool", "retriever", "embedding", "reranker", "guardrail", "evaluator", "prompt", "parser"),
        *("workflow", "task", "span", "event", "rerank", "unknown", "ai.toolcall", "ai.embed", "ai.embedmany"),
        *("ai.embed.doembed", "ai.embedmany.doembed", "ai.rerank", "ai.rerank.dorerank"),
        # These wrap the spans of the calls themselves.
        *("ai.generatetext", "ai.streamtext", "ai.generateobject", "ai.streamobject"),
    }
)
_MAX_NAME = 80


def unrecognised(spans: Iterable[Span], read: Iterable[Span]) -> Mapping[str, int]:
    """Count the spans that look like model calls and that no dialect reads, by scope and operation.

    A span around or within one that is in `read` is the same call once more, or what made it, and not counted.
    """
    known = list(spans)
    parents = {(span.trace_key, span.span_id): span.parent_id for span in known}
    places = {(span.trace_key, span.span_id) for span in read}
    around = {place for found in places for place in ancestors(found, parents)}
    names: Counter[str] = Counter()
    for span in known:
        place = (span.trace_key, span.span_id)
        if place in around or dialect_of(span) is not None or not _looks_like_a_call(span):
            continue
        if not any(ancestor in places for ancestor in ancestors(place, parents)):
            names[_name(span)] += 1
    return names


def _looks_like_a_call(span: Span) -> bool:
    operations = [str(span.attributes[name]) for name in _OPERATIONS if name in span.attributes]
    if any(operation in NO_CHATS or operation.lower() in _OTHER_KINDS for operation in operations):
        return False
    return any(key.startswith(_SIGNS) and not key.startswith(_CONTEXT) for key in span.attributes)


def _name(span: Span) -> str:
    """`SCOPE: OPERATION`, and in its absence the name of the span up to the model that many of them end with."""
    operation = next((str(span.attributes[name]) for name in _OPERATIONS if span.attributes.get(name)), None)
    return f"{span.scope.partition(' ')[0] or '(no scope)'}: {operation or span.name.partition(' ')[0]}"[:_MAX_NAME]
