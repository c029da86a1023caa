"""Requests over HTTP, with a real broker behind them, or one that went away."""

import asyncio
import gzip
import json
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest
from kafka import KafkaConsumer
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service

from streams.kafka.broker import EmbeddedBroker
from streams.kafka.publisher import Publisher
from streams.kafka.records import Outgoing
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics
from streams.otlp.records import ANY_RECORD
from streams.otlp.server import build_intake
from streams.otlp.settings import OtlpSettings
from streams.otlp.status import OtlpStatus
from streams.runtime.processes import free_port
from streams.runtime.tally import Tally
from tests.waiting import eventually

PROTOBUF, JSON = {"content-type": "application/x-protobuf"}, {"content-type": "application/json"}
TOPIC = "spans"
ANN = "a-token-of-ann-s-own"


def no_log(messages: Sequence[Outgoing]) -> None:
    """Where nothing of a request gets as far as the log."""
    assert not messages


@asynccontextmanager
async def intake(
    publish: Callable[[Sequence[Outgoing]], None] = no_log, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    app = build_intake(OtlpSettings(**settings), TOPIC, publish, Tally(OtlpStatus()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        yield client


def traces(*names: str) -> bytes:
    request = trace_service.ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number, name in enumerate(names):
        spans.add(trace_id=bytes([1] * 16), span_id=(number + 1).to_bytes(8), name=name)
    return bytes(request.SerializeToString())


@pytest.fixture
def publisher(kafka: KafkaSettings) -> Iterator[Publisher]:
    create_topics(kafka)
    opened = Publisher(kafka, timeout_s=10, max_message_bytes=2**20)
    yield opened
    opened.close()


async def test_a_request_is_in_the_log_when_it_is_answered(kafka: KafkaSettings, publisher: Publisher) -> None:
    app = build_intake(OtlpSettings(), kafka.spans_topic, publisher.publish, Tally(OtlpStatus()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        for body, headers in (
            (traces("a", "b"), PROTOBUF),
            (gzip.compress(traces("c")), PROTOBUF | {"content-encoding": "gzip"}),
        ):
            answer = await client.post("/v1/traces", content=body, headers=headers)
            assert (answer.status_code, answer.content) == (200, b"")
            assert answer.headers["content-type"] == PROTOBUF["content-type"]
        status = (await client.get("/status")).json()
    assert status["accepted"] == 3
    consumer = KafkaConsumer(
        kafka.spans_topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=3000
    )
    found = [next(consumer) for _ in range(3)]
    consumer.close()
    assert [ANY_RECORD.validate_json(record.value).name for record in found] == ["a", "b", "c"]
    assert {(record.key, record.partition) for record in found} == {(b"01" * 16, found[0].partition)}


async def test_unusable_spans_are_rejected_and_the_others_accepted() -> None:
    kept: list[Outgoing] = []
    async with intake(kept.extend, max_record_bytes=400) as client:
        span = {"traceId": "01" * 16, "spanId": "02" * 8, "name": "good"}
        spans = [span, span | {"traceId": "00"}, span | {"name": "x" * 400}]
        body = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
        answer = await client.post("/v1/traces", content=json.dumps(body), headers=JSON)
    assert answer.status_code == 200
    assert answer.json()["partialSuccess"]["rejectedSpans"] == "2"
    assert len(kept) == 1


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/v1/traces", b"\xff", PROTOBUF, 400),
        ("/v1/traces", b"{", JSON, 400),
        ("/v1/logs", b"x", PROTOBUF | {"content-encoding": "gzip"}, 400),
        ("/v1/logs", b"x", PROTOBUF | {"content-encoding": "zstd"}, 400),
        ("/v1/traces", b"{}", {"content-type": "text/plain"}, 415),
        ("/v1/traces", b"{}", {}, 415),
        ("/v1/traces", bytes(2000), PROTOBUF, 413),
        ("/v1/traces", gzip.compress(bytes(2**20), mtime=0), PROTOBUF | {"content-encoding": "gzip"}, 413),
        ("/v1/metrics", b"", PROTOBUF, 404),
    ],
)
async def test_a_bad_request_is_refused(path: str, body: bytes, headers: dict[str, str], status: int) -> None:
    async with intake(max_request_bytes=1999) as client:
        answer = await client.post(path, content=body, headers=headers)
        assert answer.status_code == status
        if headers == JSON:
            assert "message" in answer.json()


async def test_empty_requests_and_json_with_parameters_are_fine() -> None:
    async with intake() as client:
        assert (await client.post("/v1/traces", content=b"", headers=PROTOBUF)).status_code == 200
        answer = await client.post(
            "/v1/logs", content=b"{}", headers={"content-type": "application/json; charset=utf-8"}
        )
        assert (answer.status_code, answer.json()) == (200, {})


async def test_where_tokens_are_set_only_their_owners_are_accepted() -> None:
    kept: list[Outgoing] = []
    async with intake(kept.extend, tokens={"ann": ANN, "bob": "another-token-of-bob"}) as client:
        for value, status in (("", 401), ("Bearer wrong", 401), (f"Basic {ANN}", 401), (f"Bearer {ANN}", 200)):
            headers = PROTOBUF | ({"authorization": value} if value else {})
            assert (await client.post("/v1/traces", content=traces("a"), headers=headers)).status_code == status
    assert [ANY_RECORD.validate_json(message.value or b"").principal for message in kept] == ["ann"]


async def test_requests_beyond_the_limit_in_flight_are_told_to_retry() -> None:
    go_on, working = threading.Event(), queue.Queue[None]()

    def slowly(messages: Sequence[Outgoing]) -> None:
        working.put(None)
        assert go_on.wait(10)

    async with intake(slowly, max_in_flight=2, retry_after_s=7) as client:
        post = partial(client.post, "/v1/traces", content=traces("a"), headers=PROTOBUF)
        waiting = [asyncio.create_task(post()) for _ in range(2)]
        await eventually(lambda: working.qsize() == 2)
        refused = await post()
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "7")
        go_on.set()
        assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200, 200]
        assert (await post()).status_code == 200


@pytest.mark.slow
async def test_while_the_log_is_unavailable_exporters_are_told_to_retry_and_then_succeed() -> None:
    port = free_port()
    kafka = KafkaSettings(bootstrap=f"127.0.0.1:{port}")
    publisher = Publisher(kafka, timeout_s=1, max_message_bytes=2**20)
    app = build_intake(OtlpSettings(), kafka.spans_topic, publisher.publish, Tally(OtlpStatus()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", timeout=30) as client:

        async def status() -> int:
            return (await client.post("/v1/traces", content=traces("a"), headers=PROTOBUF)).status_code

        async def becomes(wanted: int) -> None:
            async def answered() -> bool:
                return await status() == wanted

            await eventually(answered, f"it answers {wanted}")

        answer = await client.post("/v1/traces", content=traces("a"), headers=PROTOBUF)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        for _ in range(2):  # the second time, a connected producer loses its cluster and finds another
            with EmbeddedBroker(port):
                create_topics(kafka)
                await becomes(200)
            await becomes(503)
    publisher.close()


async def test_logs_are_taken_as_well() -> None:
    kept: list[Outgoing] = []
    request = logs_service.ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    records.add(trace_id=bytes([1] * 16), event_name="gen_ai.choice")
    records.add(event_name="http.request")
    async with intake(kept.extend) as client:
        answer = await client.post("/v1/logs", content=request.SerializeToString(), headers=PROTOBUF)
        assert answer.content == b""
        assert (await client.get("/status")).json()["ignored"] == 1
    assert len(kept) == 1
