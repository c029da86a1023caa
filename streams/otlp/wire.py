"""From the body of an OTLP/HTTP request to records of our own, and from a verdict to the answer. The server calls it.

OTLP 1.x: https://opentelemetry.io/docs/specs/otlp/ (protobuf, and JSON with ids in hex, partial success).
"""

import base64
import binascii
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from google.protobuf.json_format import MessageToJson, ParseDict, ParseError
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.trace.v1 import trace_pb2
from pydantic import JsonValue
from pydantic_core import from_json

from streams.errors import RequestTooLargeError, UnreadableRequestError
from streams.otlp.records import AnyRecord, Attributes, LogRecord, Span, SpanEvent

MAX_DEPTH = 32
_HEX_FIELDS = frozenset({"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"})
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


class _Rejected(Exception):
    """One span or log record cannot be used; the others of its request can."""


_Traces: TypeAlias = trace_service.ExportTraceServiceRequest
_Logs: TypeAlias = logs_service.ExportLogsServiceRequest


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
    inflated, rest = bytearray(), body
    while rest:  # a gzip file may have several members
        member = zlib.decompressobj(wbits=31)
        try:
            inflated += member.decompress(rest, limit - len(inflated) + 1)
        except zlib.error as error:
            raise UnreadableRequestError(f"the body is not gzip: {error}") from error
        if len(inflated) > limit:
            raise RequestTooLargeError(f"the request is larger than {limit} bytes inflated: send smaller batches")
        if not member.eof:
            raise UnreadableRequestError("the gzip data ends too early")
        rest = member.unused_data
    return bytes(inflated)


def read(signal: Signal, encoding: Encoding, body: bytes, principal: str | None = None) -> Reading:
    """Read a request that is inflated already. Raises `UnreadableRequestError` when it cannot be read at all."""
    request = _parse(_Traces() if signal is Signal.TRACES else _Logs(), encoding, body)
    records: list[AnyRecord] = []
    ignored, reasons = 0, list[str]()
    found = _spans(request, principal) if isinstance(request, _Traces) else _log_records(request, principal)
    for item in found:
        match item:
            case None:
                ignored += 1
            case _Rejected():
                reasons.append(str(item))
            case _:
                records.append(item)
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


def _parse(request: _Traces | _Logs, encoding: Encoding, body: bytes) -> _Traces | _Logs:
    try:
        if encoding is Encoding.PROTOBUF:
            request.ParseFromString(body)
        else:
            content = from_json(body, allow_inf_nan=False)
            if not isinstance(content, dict):
                raise UnreadableRequestError("the body is not a JSON object")
            ParseDict(_ids_as_base64(content), request, ignore_unknown_fields=True)
    except (DecodeError, ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # The last three come from protobuf's own JSON parser, for shapes that it did not expect.
        raise UnreadableRequestError(
            f"the body is not an OTLP request in {encoding.value}: {type(error).__name__}"
        ) from error
    return request


def _ids_as_base64(value: JsonValue) -> JsonValue:
    """OTLP writes ids in hex where protobuf's JSON has base64."""
    if isinstance(value, list):
        return [_ids_as_base64(item) for item in value]
    if isinstance(value, dict):
        return {
            key: _hex_as_base64(item) if key in _HEX_FIELDS and isinstance(item, str) else _ids_as_base64(item)
            for key, item in value.items()
        }
    return value


def _hex_as_base64(text: str) -> str:
    try:
        raw = binascii.unhexlify(text)
    except ValueError:
        raw = b"?"  # has no id's length, so that the record is rejected and the others are not
    return base64.b64encode(raw).decode()


def _spans(request: _Traces, principal: str | None) -> Iterable[Span | _Rejected]:
    for group in request.resource_spans:
        for scoped in group.scope_spans:
            for span in scoped.spans:
                try:
                    yield _span(span, group.resource.attributes, scoped.scope, principal)
                except _Rejected as reason:
                    yield reason


def _log_records(request: _Logs, principal: str | None) -> Iterable[LogRecord | _Rejected | None]:
    for group in request.resource_logs:
        for scoped in group.scope_logs:
            for log_record in scoped.log_records:
                try:
                    yield _log_record(log_record, group.resource.attributes, scoped.scope, principal)
                except _Rejected as reason:
                    yield reason


def _span(
    span: trace_pb2.Span, resource: Iterable[KeyValue], scope: InstrumentationScope, principal: str | None
) -> Span:
    if span.parent_span_id and len(span.parent_span_id) != 8:
        raise _Rejected("a parent span id is not 8 bytes long")
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
        resource=_attributes(resource),
        scope=_scope(scope),
        principal=principal,
    )


def _log_record(
    record: logs_pb2.LogRecord, resource: Iterable[KeyValue], scope: InstrumentationScope, principal: str | None
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
        resource=_attributes(resource),
        scope=_scope(scope),
        principal=principal,
    )


def _id(raw: bytes, length: int, kind: str) -> str:
    if len(raw) != length or not any(raw):
        raise _Rejected(f"a {kind} id is missing or not {length} bytes long")
    return raw.hex()


def _scope(scope: InstrumentationScope) -> str:
    return f"{scope.name} {scope.version}".strip()


def _attributes(pairs: Iterable[KeyValue], depth: int = 0) -> Attributes:
    return {pair.key: _json(pair.value, depth) for pair in pairs}


def _json(value: AnyValue, depth: int = 0) -> JsonValue:
    if depth > MAX_DEPTH:
        raise _Rejected(f"a value is nested more than {MAX_DEPTH} levels deep")
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
