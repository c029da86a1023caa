"""What is wrong with one span or log record is its own: the others of its request are taken."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from kafka import KafkaConsumer
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue, KeyValueList

from streams.errors import UnreadableRequestError
from streams.kafka.publisher import Publisher
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics
from streams.otlp.records import ANY_RECORD, Span
from streams.otlp.server import build_intake
from streams.otlp.settings import OtlpSettings
from streams.otlp.status import OtlpStatus
from streams.otlp.wire import Encoding, Reading, Signal, read
from streams.runtime.tally import Tally

GOOD = {"traceId": "01" * 16, "spanId": "02" * 8, "name": "good"}
BAD = GOOD | {"spanId": "03" * 8, "name": "bad"}
TEXT = "cut \ufffd"


def body(*spans: Any, **group: Any) -> str:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}], **group}]})


def attribute(value: Any) -> dict[str, Any]:
    return {"attributes": [{"key": "a", "value": value}]}


def read_json(text: str | bytes, signal: Signal = Signal.TRACES) -> Reading:
    return read(signal, Encoding.JSON, text.encode() if isinstance(text, str) else text)


def named(reading: Reading) -> list[str]:
    return [record.name for record in reading.records]


@pytest.mark.parametrize(
    "written", [r'"cut \ud83d"', r'"cut \uDE00"', r'"cut \udc00"', '"cut \ufffd"', b'"cut \xff"', rb'"cut \ud83d"']
)
def test_what_is_not_unicode_in_json_is_replaced(written: str | bytes) -> None:
    raw = written if isinstance(written, bytes) else written.encode()
    request = body(GOOD, BAD | attribute({"stringValue": "@"})).encode().replace(b'"@"', raw)
    reading = read_json(request)
    assert (named(reading), reading.rejected) == (["good", "bad"], 0)
    assert reading.records[1].attributes == {"a": TEXT}


def test_whole_pairs_and_escaped_backslashes_stay() -> None:
    told = r'"\ud83d\ude00 \\ud83d \n\u00fc \ud83d\u0041"'
    reading = read_json(body(BAD | attribute({"stringValue": "@"})).replace('"@"', told))
    assert reading.records[0].attributes == {"a": "\U0001f600 \\ud83d \n\u00fc \ufffdA"}


@pytest.mark.parametrize("written", ['"\\x"', '"a\nb"', '"\\u12"'])
def test_strings_that_json_does_not_allow_are_read(written: str) -> None:
    reading = read_json(body(GOOD, BAD | attribute({"stringValue": "@"})).replace('"@"', written))
    assert (named(reading), reading.rejected) == (["good", "bad"], 0)


@pytest.mark.parametrize(
    "broken",
    [
        attribute({"intValue": "9223372036854775808"}),
        attribute({"intValue": 2**63}),
        attribute({"intValue": 1.5}),
        attribute({"intValue": "many"}),
        attribute({"boolValue": "maybe"}),
        attribute({"doubleValue": "x"}),
        attribute({"stringValue": 7}),
        attribute({"stringValue": "a", "intValue": 1}),
        attribute({"bytesValue": 5}),
        attribute({"arrayValue": 1}),
        {"attributes": "none"},
        {"attributes": [7]},
        {"startTimeUnixNano": str(2**64)},
        {"startTimeUnixNano": "-1"},
        {"endTimeUnixNano": -1},
        {"endTimeUnixNano": "now"},
        {"events": [{"timeUnixNano": str(2**64)}]},
        {"events": 3},
        {"name": 5},
        {"name": ["x"]},
        {"traceId": 7},
        {"traceId": "01" * 15},
        {"traceId": "zz" * 16},
        {"traceId": None},
        {"spanId": {"a": 1}},
        {"parentSpanId": [1]},
    ],
)
def test_a_malformed_span_is_rejected_alone(broken: dict[str, Any]) -> None:
    for spans in ((GOOD, BAD | broken), (BAD | broken, GOOD)):
        reading = read_json(body(*spans))
        assert (named(reading), reading.rejected) == (["good"], 1), reading


def test_a_number_of_thousands_of_digits_rejects_its_span_alone() -> None:
    request = body(GOOD, BAD | attribute({"intValue": "@"})).replace('"@"', "9" * 5000)
    reading = read_json(request)
    assert (named(reading), reading.rejected) == (["good"], 1)


@pytest.mark.parametrize(
    "harmless",
    [
        {"kind": 99},
        {"kind": "SPAN_KIND_OF_ITS_OWN"},
        {"kind": {}},
        {"status": {"code": 77}},
        {"status": {"code": "BAD", "message": 5}},
        {"status": 4},
        {"links": "none"},
        {"flags": -1},
        {"traceState": 8},
        {"newField": {"deep": [[1]]}},
        attribute({"newValue": 1}),
        attribute({"doubleValue": "NaN"}),
        attribute({"doubleValue": float("nan")}),
        attribute({"doubleValue": float("-inf")}),
        attribute(None),
        {"attributes": None, "events": None, "name": None},
    ],
)
def test_what_is_not_used_or_not_known_does_no_harm(harmless: dict[str, Any]) -> None:
    reading = read_json(body(GOOD, BAD | harmless))
    assert (len(reading.records), reading.rejected) == (2, 0)


@pytest.mark.parametrize("item", [7, None, "span", [], True])
def test_what_is_no_span_at_all_is_rejected_alone(item: Any) -> None:
    reading = read_json(body(GOOD, item))
    assert (named(reading), reading.rejected) == (["good"], 1)
    for name, damaged in (("resourceSpans", [item]), ("scopeSpans", [item]), ("spans", item or "x")):
        whole = json.loads(body(GOOD))
        damaged_group = {"scopeSpans": damaged} if name == "scopeSpans" else {"scopeSpans": [{"spans": damaged}]}
        whole["resourceSpans"].append(item if name == "resourceSpans" else damaged_group)
        reading = read_json(json.dumps(whole))
        assert named(reading) == ["good"], (name, item)
        assert reading.rejected == (0 if item == [] and name == "spans" and damaged == [] else 1), (name, item)


@pytest.mark.parametrize("depth", [40, 150, 5000])
def test_a_span_that_is_nested_too_deep_is_rejected_alone(depth: int) -> None:
    deep = '{"arrayValue":{"values":[' * depth + '{"intValue":1}' + "]}}" * depth
    reading = read_json(body(BAD | attribute("@"), GOOD).replace('"@"', deep))
    assert (named(reading), reading.rejected) == (["good"], 1)
    unused = read_json(body(BAD | {"unused": "@"}, GOOD).replace('"@"', "[" * depth + "]" * depth))
    assert (named(unused), unused.rejected) == (["bad", "good"], 0)


def test_the_resource_and_the_scope_lose_what_cannot_be_read_and_their_spans_stay() -> None:
    pairs = [{"key": "service.name", "value": {"stringValue": "shop"}}, {"key": "n", "value": {"intValue": 2**70}}]
    (record,) = read_json(body(GOOD, resource={"attributes": pairs})).records
    assert record.resource == {"service.name": "shop"}
    for resource in (7, {"attributes": 7}, {"attributes": [7]}, None):
        assert named(read_json(body(GOOD, resource=resource))) == ["good"]
    whole = json.loads(body(GOOD))
    for scope in (7, {"name": 7}, None):
        whole["resourceSpans"][0]["scopeSpans"][0]["scope"] = scope
        (record,) = read_json(json.dumps(whole)).records
        assert record.scope == ""


def test_one_log_record_does_not_lose_the_others() -> None:
    good = {"traceId": "01" * 16, "eventName": "gen_ai.choice", "timeUnixNano": "5"}
    bad = [good | {"timeUnixNano": str(2**64)}, good | {"body": {"intValue": 2**64}}, 7]
    cut = good | {"body": {"stringValue": "@"}}
    text = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [*bad, good, cut]}]}]})
    reading = read_json(text.replace('"@"', r'"cut \ud83d"'), Signal.LOGS)
    assert (len(reading.records), reading.rejected) == (2, 3)


def test_snake_case_is_read_as_protobufs_own_json_has_it() -> None:
    span = {"trace_id": "01" * 16, "span_id": "02" * 8, "parent_span_id": "04" * 8, "name": "snake"}
    request = {"resource_spans": [{"scope_spans": [{"spans": [span | {"dropped_attributes_count": 3}]}]}]}
    (record,) = read_json(json.dumps(request)).records
    assert isinstance(record, Span)
    assert (record.name, record.parent_id, record.dropped_attributes) == ("snake", "04" * 8, 3)


def test_losses_and_failure_of_a_span_are_read_in_both_encodings() -> None:
    request = trace_service.ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(trace_id=bytes([1] * 16), span_id=bytes([2] * 8))
    span.dropped_attributes_count, span.dropped_events_count, span.status.code = 7, 2, 2
    (record,) = read(Signal.TRACES, Encoding.PROTOBUF, request.SerializeToString()).records
    lost = GOOD | {"name": "", "droppedAttributesCount": 7, "droppedEventsCount": 2, "status": {"code": 2}}
    assert read_json(body(lost)).records == (record,)
    assert isinstance(record, Span)
    assert (record.dropped_attributes, record.dropped_events, record.failed) == (7, 2, True)


def protobuf(damage: Callable[[bytes], bytes]) -> bytes:
    """A request of a span that is damaged on the wire, and one that is not."""
    request = trace_service.ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value="shop")))
    spans = group.scope_spans.add().spans
    bad = spans.add(trace_id=bytes([1] * 16), span_id=bytes([3] * 8), name="bad")
    inner = AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="k", value=AnyValue(string_value="cut @@@"))]))
    bad.attributes.append(KeyValue(key="a", value=inner))
    bad.events.add(name="@@@")
    spans.add(trace_id=bytes([1] * 16), span_id=bytes([2] * 8), name="good")
    return damage(bytes(request.SerializeToString()))


def test_what_is_not_utf_8_in_protobuf_is_replaced() -> None:
    raw = protobuf(lambda whole: whole.replace(b"@@@", b"\xf0\x9f\x98"))
    with pytest.raises(Exception, match=r"(?i)utf-8|pars"):
        trace_service.ExportTraceServiceRequest.FromString(raw)
    reading = read(Signal.TRACES, Encoding.PROTOBUF, raw)
    assert (named(reading), reading.rejected) == (["bad", "good"], 0)
    bad = reading.records[0]
    assert isinstance(bad, Span)
    assert (bad.attributes, bad.events[0].name) == ({"a": {"k": TEXT}}, "\ufffd")
    resource = protobuf(lambda whole: whole.replace(b"shop", b"sh\xffp"))
    assert read(Signal.TRACES, Encoding.PROTOBUF, resource).records[1].resource == {"service.name": "sh\ufffdp"}
    name = protobuf(lambda whole: whole.replace(b"bad", b"b\xffd"))
    assert named(read(Signal.TRACES, Encoding.PROTOBUF, name)) == ["b\ufffdd", "good"]


def test_a_span_that_is_damaged_on_the_wire_is_rejected_alone() -> None:
    # The length of the name runs beyond its span.
    reading = read(Signal.TRACES, Encoding.PROTOBUF, protobuf(lambda whole: whole.replace(b"\x03bad", b"\x7fbad")))
    assert (named(reading), reading.rejected) == (["good"], 1)
    with pytest.raises(UnreadableRequestError):
        read(Signal.TRACES, Encoding.PROTOBUF, protobuf(lambda whole: whole[:-1]))


def test_a_log_record_that_is_not_utf_8_is_repaired() -> None:
    request = logs_service.ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for text in ("@", "fine"):
        records.add(trace_id=bytes([1] * 16), event_name="gen_ai.choice", body=AnyValue(string_value=text))
    raw = bytes(request.SerializeToString()).replace(b"@", b"\xff")
    reading = read(Signal.LOGS, Encoding.PROTOBUF, raw)
    assert ([record.model_dump()["body"] for record in reading.records], reading.rejected) == (["\ufffd", "fine"], 0)


async def test_over_http_the_good_spans_are_in_the_log_and_the_answer_counts_the_others(kafka: KafkaSettings) -> None:
    create_topics(kafka)
    publisher = Publisher(kafka, timeout_s=10, max_message_bytes=2**20)
    app = build_intake(OtlpSettings(), kafka.spans_topic, publisher.publish, Tally(OtlpStatus()))
    text = body(GOOD, BAD | attribute({"stringValue": "@"}), BAD | {"startTimeUnixNano": -1})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        for content, kind, rejected in (
            (text.replace('"@"', r'"cut \ud83d"').encode(), "application/json", {"rejectedSpans": "1"}),
            (protobuf(lambda whole: whole.replace(b"@@@", b"\xf0\x9f\x98")), "application/x-protobuf", None),
        ):
            answer = await client.post("/v1/traces", content=content, headers={"content-type": kind})
            assert answer.status_code == 200
            if rejected:
                assert answer.json()["partialSuccess"].items() >= rejected.items()
    consumer = KafkaConsumer(
        kafka.spans_topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=3000
    )
    found = [ANY_RECORD.validate_json(next(consumer).value).name for _ in range(4)]
    consumer.close()
    publisher.close()
    assert found == ["good", "bad", "bad", "good"]
