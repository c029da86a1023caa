"""From the body of an OTLP/HTTP request to records of our own, and from a verdict to the answer. The server calls it.

OTLP 1.x: https://opentelemetry.io/docs/specs/otlp/ (protobuf, and JSON with ids in hex, partial success).
"""

import base64
import math
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2
from pydantic import JsonValue

from streams.errors import RequestTooLargeError, UnreadableRequestError
from streams.otlp.envelope import Part, member, open_json, open_protobuf
from streams.otlp.parsing import Rejected, parse
from streams.otlp.records import AnyRecord, Attributes, LogRecord, Span, SpanEvent
from streams.runtime.http_bodies import inflated

MAX_DEPTH = 32
_GEN_AI_EVENTS = "gen_ai."


class Encoding(StrEnum):
    """The two encodings of OTLP over HTTP, by content type."""

    PROTOBUF = "application/x-protobuf"
    JSON = "application/json"


class Signal(StrEnum):
    """The signals of a request."""

    TRACES = "traces"
    LOGS = "logs"


@dataclass(frozen=True, slots=True)
class Reading:
    """The content of a request. `ignored` log records are not GenAI events; `rejected` records cannot be used.

    `reason` is that of the first rejection.
    """

    records: tuple[AnyRecord, ...]
    ignored: int = 0
    rejected: int = 0
    reason: str = ""


# The lists in a request for each signal, as JSON names them.
_TRACES = ("resourceSpans", "scopeSpans", "spans")
_LOGS = ("resourceLogs", "scopeLogs", "logRecords")


def inflate(body: bytes, content_encoding: str, limit: int) -> bytes:
    """The body without its compression. Never holds more than `limit` bytes.

    Raises `RequestTooLargeError`, and `UnreadableRequestError` for damaged data or an encoding other than gzip.
    """
    if content_encoding in ("", "identity"):
        if len(body) > limit:
            raise RequestTooLargeError(f"the request is larger than {limit} bytes: send smaller batches")
        return body
    if content_encoding != "gzip":
        raise UnreadableRequestError(f"the content encoding {content_encoding!r} is not supported: use gzip or none")
    try:
        found = inflated(body, content_encoding, limit)
    except zlib.error as error:
        raise UnreadableRequestError(f"the body is not gzip: {error}") from error
    except EOFError as error:
        raise UnreadableRequestError("the gzip data ends too early") from error
    if found is None:
        raise RequestTooLargeError(f"the request is larger than {limit} bytes inflated: send smaller batches")
    return found


def read(signal: Signal, encoding: Encoding, body: bytes, principal: str | None = None) -> Reading:
    """Read a request that is inflated already. Raises `UnreadableRequestError` when it cannot be read at all.

    A span or log record that cannot be read is rejected, and the others are not.
    """
    records: list[AnyRecord] = []
    ignored, reasons = 0, list[str]()
    names = _TRACES if signal is Signal.TRACES else _LOGS
    opened = open_protobuf(body) if encoding is Encoding.PROTOBUF else open_json(body, *names)
    for scoped in opened:
        resource, scope = _resource(scoped.resource), _scope(scoped.scope)
        for item in scoped.items:
            try:
                record = (
                    _span(parse(trace_pb2.Span, item), resource, scope, principal)
                    if signal is Signal.TRACES
                    else _log_record(parse(logs_pb2.LogRecord, item), resource, scope, principal)
                )
            except Rejected as reason:
                reasons.append(str(reason))
                continue
            if record is None:
                ignored += 1
            else:
                records.append(record)
    return Reading(tuple(records), ignored, len(reasons), reasons[0] if reasons else "")


def accepted(signal: Signal, encoding: Encoding, rejected: int, reason: str) -> bytes:
    """The answer to a request that was taken, but for `rejected` of its records."""
    answer: Message
    if signal is Signal.TRACES:
        answer = trace_service.ExportTraceServiceResponse()
        if rejected:
            answer.partial_success.rejected_spans, answer.partial_success.error_message = rejected, reason
    else:
        answer = logs_service.ExportLogsServiceResponse()
        if rejected:
            answer.partial_success.rejected_log_records, answer.partial_success.error_message = rejected, reason
    return _encode(answer, encoding)


def refused(encoding: Encoding, reason: str) -> bytes:
    """The answer to a request that was not taken."""
    return _encode(Status(message=reason), encoding)


def _encode(message: Message, encoding: Encoding) -> bytes:
    return (
        MessageToJson(message, indent=None).encode()
        if encoding is Encoding.JSON
        else bytes(message.SerializeToString())
    )


def _resource(part: Part) -> Attributes:
    """The attributes of a resource, less those that cannot be read: its spans are not to blame for them."""
    if part is None:
        return {}
    try:
        return _attributes(parse(Resource, part).attributes)
    except Rejected:
        pairs = member(part, "attributes") if isinstance(part, dict) else None
    found: Attributes = {}
    for pair in pairs if isinstance(pairs, list) else ():
        with suppress(Rejected):
            found |= _attributes([parse(KeyValue, pair)])
    return found


def _scope(part: Part) -> str:
    try:
        scope = parse(InstrumentationScope, part) if part is not None else InstrumentationScope()
    except Rejected:
        return ""
    return f"{scope.name} {scope.version}".strip()


def _span(span: trace_pb2.Span, resource: Attributes, scope: str, principal: str | None) -> Span:
    if span.parent_span_id and len(span.parent_span_id) != 8:
        raise Rejected("a parent span id is not 8 bytes long")
    return Span(
        trace_id=_id(span.trace_id, 16, "trace"),
        span_id=_id(span.span_id, 8, "span"),
        parent_id=span.parent_span_id.hex() if any(span.parent_span_id) else "",
        name=span.name,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        events=tuple(
            SpanEvent(name=event.name, time_ns=event.time_unix_nano, attributes=_attributes(event.attributes))
            for event in span.events
        ),
        dropped_attributes=span.dropped_attributes_count,
        dropped_events=span.dropped_events_count,
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        resource=resource,
        scope=scope,
        principal=principal,
    )


def _log_record(
    record: logs_pb2.LogRecord, resource: Attributes, scope: str, principal: str | None
) -> LogRecord | None:
    attributes = _attributes(record.attributes)
    name = record.event_name or attributes.get("event.name")
    if not isinstance(name, str) or not name.startswith(_GEN_AI_EVENTS):
        return None
    return LogRecord(
        trace_id=_id(record.trace_id, 16, "trace"),
        span_id=_id(record.span_id, 8, "span") if any(record.span_id) else "",
        name=name,
        time_ns=record.time_unix_nano or record.observed_time_unix_nano,
        body=_json(record.body),
        attributes=attributes,
        resource=resource,
        scope=scope,
        principal=principal,
    )


def _id(raw: bytes, length: int, kind: str) -> str:
    if len(raw) != length or not any(raw):
        raise Rejected(f"a {kind} id is missing or not {length} bytes long")
    return raw.hex()


def _attributes(pairs: Iterable[KeyValue], depth: int = 0) -> Attributes:
    return {pair.key: _json(pair.value, depth) for pair in pairs}


def _json(value: AnyValue, depth: int = 0) -> JsonValue:
    if depth > MAX_DEPTH:
        raise Rejected(f"a value is nested more than {MAX_DEPTH} levels deep")
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value":
            # JSON has no other numbers.
            return value.double_value if math.isfinite(value.double_value) else str(value.double_value)
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case "array_value":
            items: Sequence[AnyValue] = value.array_value.values
            return [_json(item, depth + 1) for item in items]
        case "kvlist_value":
            return _attributes(value.kvlist_value.values, depth + 1)
        case _:
            return None
