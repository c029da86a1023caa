"""Traces of Ratchet itself by OpenTelemetry. Its standard variables switch them on; without them nothing is done.

Spans say which parts a request passed, how long each took and how it ended. They hold ids, names of adapters and
statuses, and never a word of what was said, nor a principal. Roles begin their tracing by `traced`; the gateway makes
the spans of a request, and the assemble role and the record role go on with its trace.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    NoOpTracer,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_span_id,
    format_trace_id,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ratchet_client.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

# https://opentelemetry.io/docs/specs/otel/protocol/exporter/ and .../configuration/sdk-environment-variables/
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
TRACEPARENT: Final = "traceparent"
CONTEXT_HEADERS: Final = frozenset({TRACEPARENT.encode(), b"tracestate"})
"""The headers of W3C Trace Context, https://www.w3.org/TR/trace-context/."""

UNTRACED: Final[AbstractContextManager[Span]] = nullcontext(trace.INVALID_SPAN)
"""In place of a span where this process is not traced."""

_PROPAGATOR = TraceContextTextMapPropagator()
_tracer: Tracer = NoOpTracer()


def is_asked_for(variables: Mapping[str, str]) -> bool:
    """Return whether the variables of OpenTelemetry ask for traces.

    >>> is_asked_for({}), is_asked_for({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})
    (False, True)
    """
    off = variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    off = off or variables.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"
    return not off and any(variables.get(name, "").strip() for name in _ENDPOINTS)


@contextmanager
def traced(role: str, exporter: "SpanExporter | None" = None) -> Iterator[None]:
    """Trace this process meanwhile, as the service `ratchet-<role>`, if the variables ask for it.

    With an `exporter` it is traced in any case. What is recorded is sent off the requests' path, and the rest of it in
    the end. Raises `ConfigurationError` for a protocol other than OTLP over HTTP.
    """
    global _tracer
    if exporter is None and not is_asked_for(os.environ):
        yield
        return
    protocol = next((os.environ[name] for name in _PROTOCOLS if os.environ.get(name)), _PROTOCOL)
    if protocol != _PROTOCOL:
        raise ConfigurationError(
            f"traces cannot be sent by {protocol!r}: set OTEL_EXPORTER_OTLP_PROTOCOL={_PROTOCOL}, and the endpoint to "
            "the collector's port for it, 4318 as a rule"
        )
    # Without traces a process does not pay for these.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: f"ratchet-{role}"}
    provider = TracerProvider(resource=Resource.create({**named, "ratchet.role": role}))
    provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
    before, _tracer = _tracer, provider.get_tracer("ratchet")
    try:
        yield
    finally:
        _tracer = before
        provider.shutdown()


def is_on() -> bool:
    """Return whether this process is traced."""
    return not isinstance(_tracer, NoOpTracer)


def span(
    name: str, kind: SpanKind, attributes: Mapping[str, str], caller: Mapping[str, str] | None = None
) -> AbstractContextManager[Span]:
    """A span of what is done inside, below the current one, or that of a `caller` whose headers tell it.

    An error inside ends it with the error's class, and not its text, which may hold what somebody said.
    """
    return _span(name, kind, attributes, caller) if is_on() else UNTRACED


@contextmanager
def _span(name: str, kind: SpanKind, attributes: Mapping[str, str], caller: Mapping[str, str] | None) -> Iterator[Span]:
    above = _PROPAGATOR.extract(caller) if caller is not None else None
    with _tracer.start_as_current_span(
        name, above, kind, dict(attributes), record_exception=False, set_status_on_exception=False
    ) as made:
        try:
            yield made
        except BaseException as error:
            failed(made, type(error).__name__)
            raise


def failed(span: Span, reason: str) -> None:
    """Mark a span as that of a failure; `reason` is of a closed list."""
    span.set_status(Status(StatusCode.ERROR))
    span.set_attribute("error.type", reason)


def past_span(name: str, kind: SpanKind, caller: Mapping[str, str], begin_ns: int, end_ns: int) -> None:
    """A span of what is over, below the one that `caller` tells. Times are in nanoseconds since 1970."""
    if caller:
        above: Context = _PROPAGATOR.extract(caller)
        _tracer.start_span(name, above, kind, start_time=begin_ns).end(end_ns)


def traceparent_of(header: str | None) -> str | None:
    """The `traceparent` that a record of the log bears; None where its header is none, and in a process not traced.

    Its `tracestate` is not taken: it may be any text, and what is traced leaves this machine.
    """
    if header is None or not is_on():
        return None
    found = trace.get_current_span(_PROPAGATOR.extract({TRACEPARENT: header})).get_span_context()
    if not found.is_valid:
        return None
    return f"00-{format_trace_id(found.trace_id)}-{format_span_id(found.span_id)}-{found.trace_flags:02x}"


def consumed(name: str, traceparents: Iterable[str | None], began_ns: int) -> None:
    """A span, from `began_ns` until now, for each of the records of the log that bear a `traceparent`."""
    ended_ns = time.time_ns()
    for traceparent in traceparents:
        if traceparent is not None:
            past_span(name, SpanKind.CONSUMER, {TRACEPARENT: traceparent}, began_ns, ended_ns)


def context() -> dict[str, str]:
    """The headers that tell others of the current span; none where this process is not traced."""
    carrier: dict[str, str] = {}
    if is_on():
        _PROPAGATOR.inject(carrier)
    return carrier
