"""OTLP requests as exporters send them, as other languages write them, and as no one should."""

import gzip
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue

from streams.errors import RequestTooLargeError, UnreadableRequestError
from streams.otlp.records import ANY_RECORD, LogRecord, Span
from streams.otlp.wire import Encoding, Signal, accepted, inflate, read, refused

TRACE, SPAN = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"


def json_span(**fields: Any) -> dict[str, Any]:
    return {
        "traceId": TRACE,
        "spanId": SPAN,
        "name": "chat",
        "kind": 3,
        "startTimeUnixNano": "1544712660000000000",
        "endTimeUnixNano": "1544712661000000000",
        "attributes": [],
        **fields,
    }


def json_request(*spans: dict[str, Any]) -> bytes:
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    scoped = [{"scope": {"name": "lib", "version": "1"}, "spans": list(spans)}]
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": scoped}]}).encode()


def protobuf_request(*values: AnyValue) -> bytes:
    request = trace_service.ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id, span.name = bytes.fromhex(TRACE), bytes.fromhex(SPAN), "chat"
    for number, value in enumerate(values):
        span.attributes.append(KeyValue(key=str(number), value=value))
    return bytes(request.SerializeToString())


def one(body: bytes, encoding: Encoding = Encoding.JSON) -> Span:
    (record,) = read(Signal.TRACES, encoding, body, "ann").records
    assert isinstance(record, Span)
    return record


def test_a_span_in_json_has_hex_ids_and_numbers_in_strings() -> None:
    attributes = [
        {"key": "text", "value": {"stringValue": "ü"}},
        {"key": "whole", "value": {"intValue": "9007199254740993"}},
        {"key": "list", "value": {"arrayValue": {"values": [{"boolValue": True}, {"doubleValue": 0.5}]}}},
        {"key": "map", "value": {"kvlistValue": {"values": [{"key": "traceId", "value": {"stringValue": "not hex"}}]}}},
    ]
    body = json_request(json_span(parentSpanId="EEE19B7EC3C1B173", attributes=attributes, unknownField={"a": 1}))
    span = one(body)
    assert (span.trace_id, span.span_id, span.parent_id) == (TRACE, SPAN, "eee19b7ec3c1b173")
    assert span.end_ns - span.start_ns == 1_000_000_000
    assert span.attributes == {
        "text": "ü",
        "whole": 9007199254740993,
        "list": [True, 0.5],
        "map": {"traceId": "not hex"},
    }
    assert (span.resource, span.scope, span.principal) == ({"service.name": "shop"}, "lib 1", "ann")
    assert ANY_RECORD.validate_json(span.to_json()) == span


def test_both_encodings_of_a_span_give_the_same_record() -> None:
    request = trace_service.ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value="shop")))
    scoped = group.scope_spans.add()
    scoped.scope.name, scoped.scope.version = "lib", "1"
    scoped.spans.add(
        trace_id=bytes.fromhex(TRACE),
        span_id=bytes.fromhex(SPAN),
        name="chat",
        start_time_unix_nano=1544712660000000000,
        end_time_unix_nano=1544712661000000000,
    )
    assert one(request.SerializeToString(), Encoding.PROTOBUF) == one(json_request(json_span()))


def test_numbers_that_json_lacks_and_bytes_become_text() -> None:
    values = (AnyValue(double_value=float("nan")), AnyValue(double_value=float("-inf")), AnyValue(bytes_value=b"\xff"))
    assert list(one(protobuf_request(*values), Encoding.PROTOBUF).attributes.values()) == ["nan", "-inf", "/w=="]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"traceId": "0" * 32}, "trace id"),
        ({"traceId": "zz"}, "trace id"),
        ({"traceId": ""}, "trace id"),
        ({"spanId": "eee1"}, "span id"),
        ({"parentSpanId": "what"}, "parent span id"),
    ],
)
def test_a_span_without_usable_ids_is_rejected_and_the_others_are_not(broken: dict[str, str], reason: str) -> None:
    reading = read(Signal.TRACES, Encoding.JSON, json_request(json_span(), json_span(**broken)))
    assert (len(reading.records), reading.rejected) == (1, 1)
    assert reason in reading.reason


def test_a_value_that_is_nested_too_deep_rejects_its_span() -> None:
    deep = AnyValue(string_value="bottom")
    for _ in range(36):
        deep = AnyValue(array_value=ArrayValue(values=[deep]))
    reading = read(Signal.TRACES, Encoding.PROTOBUF, protobuf_request(deep))
    assert (reading.records, reading.rejected) == ((), 1)
    with pytest.raises(UnreadableRequestError):
        read(Signal.TRACES, Encoding.JSON, b'{"a":' * 100_000)


def test_of_log_records_only_gen_ai_events_are_taken() -> None:
    request = logs_service.ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    records.add(body=AnyValue(string_value="started"))
    named = records.add(trace_id=bytes.fromhex(TRACE), event_name="gen_ai.choice", observed_time_unix_nano=7)
    named.body.kvlist_value.values.append(KeyValue(key="index", value=AnyValue(int_value=0)))
    old = records.add(trace_id=bytes.fromhex(TRACE), time_unix_nano=5)
    old.attributes.append(KeyValue(key="event.name", value=AnyValue(string_value="gen_ai.user.message")))
    records.add(event_name="gen_ai.choice")
    reading = read(Signal.LOGS, Encoding.PROTOBUF, request.SerializeToString())
    assert (reading.ignored, reading.rejected) == (1, 1)
    first, second = reading.records
    assert isinstance(first, LogRecord)
    assert (first.name, first.time_ns, first.body) == ("gen_ai.choice", 7, {"index": 0})
    assert second.name == "gen_ai.user.message"


def test_a_gzip_bomb_is_stopped_at_the_limit() -> None:
    bomb = gzip.compress(bytes(2**24))
    with pytest.raises(RequestTooLargeError):
        inflate(bomb, "gzip", 2**16)
    with pytest.raises(RequestTooLargeError):
        inflate(gzip.compress(bytes(40_000)) * 2, "gzip", 2**16)
    assert inflate(gzip.compress(b"a") + gzip.compress(b"b"), "gzip", 2) == b"ab"


@pytest.mark.parametrize(
    ("body", "encoding"), [(b"plain", "gzip"), (gzip.compress(b"x" * 99, mtime=0)[:-9], "gzip"), (b"", "br")]
)
def test_damaged_compression_is_unreadable(body: bytes, encoding: str) -> None:
    with pytest.raises(UnreadableRequestError):
        inflate(body, encoding, 1000)


def test_answers_say_how_many_were_rejected() -> None:
    answer = trace_service.ExportTraceServiceResponse.FromString(accepted(Signal.TRACES, Encoding.PROTOBUF, 2, "why"))
    assert (answer.partial_success.rejected_spans, answer.partial_success.error_message) == (2, "why")
    assert json.loads(accepted(Signal.LOGS, Encoding.JSON, 1, "why")) == {
        "partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "why"}
    }
    assert accepted(Signal.LOGS, Encoding.PROTOBUF, 0, "") == b""
    assert json.loads(refused(Encoding.JSON, "no")) == {"message": "no"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(
                [
                    "resourceSpans",
                    "scopeSpans",
                    "spans",
                    "resourceLogs",
                    "scopeLogs",
                    "logRecords",
                    "traceId",
                    "spanId",
                    "attributes",
                    "key",
                    "value",
                    "stringValue",
                    "intValue",
                    "arrayValue",
                    "values",
                    "kvlistValue",
                    "events",
                    "eventName",
                    "body",
                    "resource",
                    "scope",
                    "startTimeUnixNano",
                    "kind",
                    "status",
                    "code",
                    "flags",
                ]
            ),
            inner,
        )
    ),
    max_leaves=30,
)


def survives(signal: Signal, encoding: Encoding, body: bytes) -> None:
    try:
        reading = read(signal, encoding, body)
    except UnreadableRequestError:
        return
    for record in reading.records:
        assert ANY_RECORD.validate_json(record.to_json()) == record


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(Signal), st.sampled_from(Encoding), st.binary(max_size=400))
def test_arbitrary_bytes_do_not_crash_the_reader(signal: Signal, encoding: Encoding, body: bytes) -> None:
    survives(signal, encoding, body)
    with suppress(UnreadableRequestError, RequestTooLargeError):
        inflate(body, "gzip", 1000)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(Signal), json_values)
def test_arbitrary_json_does_not_crash_the_reader(signal: Signal, value: object) -> None:
    survives(signal, Encoding.JSON, json.dumps(value).encode())


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10_000), st.binary(max_size=8), st.integers(0, 20))
def test_a_damaged_request_does_not_crash_the_reader(place: int, patch: bytes, cut: int) -> None:
    whole = protobuf_request(AnyValue(string_value="text"), AnyValue(int_value=-1), AnyValue(double_value=0.1))
    place %= len(whole)
    survives(Signal.TRACES, Encoding.PROTOBUF, whole[:place] + patch + whole[place + cut :])
