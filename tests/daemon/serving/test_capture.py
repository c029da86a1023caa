"""What passes the gateway is recorded as it passed, whatever breaks off, and a log that is away costs no reply."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import pytest
from kafka.errors import MessageSizeTooLargeError
from starlette.types import ASGIApp, Message

from daemon.serving.capture import Capture, Taken, as_record
from daemon.serving.headers import RawHeaders
from daemon.serving.settings import CaptureSettings
from daemon.serving.upstream import Upstream, UpstreamError
from ratchet_client.errors import BrokerError
from ratchet_client.messages import user
from streams.calls.records import ANY_CALL_RECORD, CallLabels, CapturedCall, Face, key_of_receipt, new_receipt
from streams.kafka.publisher import Publisher
from streams.kafka.records import Outgoing
from streams.kafka.settings import KafkaSettings
from streams.policy.client import PolicyClient, Sampling
from tests.builders.rotations import in_rotation
from tests.daemon.serving.upstream import CHAT, Log, bench, over_tcp, stream, whole
from tests.integration.recording import read_all
from tests.waiting import until


class _Source:
    """A connection to the engine that gives `parts`, and then ends or breaks off."""

    status, media_type, encoding = 200, "text/event-stream", ""
    replicas = in_rotation("http://127.0.0.1:9")

    def __init__(self, parts: list[bytes], ends: bool) -> None:
        self._parts, self._ends = parts, ends
        self.headers: RawHeaders = []

    @asynccontextmanager
    async def ask(self, *_: object) -> AsyncIterator["_Source"]:
        yield self

    async def parts(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part
        if not self._ends:
            raise UpstreamError("it broke off")


async def _ask(endpoint: ASGIApp, leaves_after: int | None) -> tuple[str, bytes, bool]:
    """The receipt, what the client got of the engine's bytes, and whether it got all."""
    headers = [(b"host", b"127.0.0.1")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": headers,
        "query_string": b"",
    }
    body = {"type": "http.request", "body": json.dumps(CHAT | {"stream": True}).encode()}
    left, got, receipt, ended, first = asyncio.Event(), list[bytes](), "", False, True

    async def receive() -> Message:
        nonlocal first
        if first:
            first = False
            return body
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal receipt, ended
        if message["type"] == "http.response.start":
            receipt = dict(message["headers"])[b"x-ratchet-receipt"].decode()
        elif message.get("more_body"):
            got.append(message["body"])
        else:
            ended = not message.get("body")
        if leaves_after is not None and len(got) >= leaves_after:
            left.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    await endpoint(scope, receive, send)
    return receipt, b"".join(got), ended


def taken(reply: bytes = b"{}", request: bytes = b"{}") -> Taken:
    return Taken(
        *(new_receipt("0" * 16), Face.CHAT, CallLabels(), False, "base", 200, False, True, "", 5, 7, request, (reply,))
    )


async def test_a_call_is_recorded_as_it_went_over_the_wire_with_its_receipt_and_labels() -> None:
    body = b'{"model": "assistant", "messages": [], "user": "anna"}'
    async with bench(whole(200, b'{"id": "\xc3\xbc"}')) as gateway:
        headers = {"x-ratchet-episode": "e-1", "x-ratchet-task": "t", "x-ratchet-seed": "7", "x-ratchet-agent": "desk"}
        answer = await gateway.client.post("/v1/chat/completions", content=body, headers=headers)
        call = gateway.call()
        (message,) = gateway.log.messages
    assert call.receipt == answer.headers["x-ratchet-receipt"]
    assert message.key == (key_of_receipt(call.receipt) or "").encode()
    assert (call.request, call.reply) == (body.decode(), '{"id": "ü"}')
    assert (call.face, call.served, call.status) == (Face.CHAT, "ratchet-1", 200)
    assert (call.streamed, call.complete, call.authenticated, call.cut_at) == (False, True, False, None)
    assert call.began_ns <= call.ended_ns
    labels = CallLabels(principal="anna", agent="desk", episode="e-1", task="t", seed=7)
    assert call.labels == labels


@pytest.mark.parametrize("face", list(Face))
async def test_a_stream_is_recorded_as_the_text_of_its_events(face: Face) -> None:
    parts = [b'data: {"id": "1"}\n\n', b"data: [DONE]\n\n"]
    async with bench(stream(*parts)) as gateway:
        answer = await gateway.client.post(face.value, json=CHAT | {"stream": True})
        call = gateway.call()
    assert answer.content == b"".join(parts)
    assert call.receipt == answer.headers["x-ratchet-receipt"]
    assert answer.headers["x-ratchet-adapter"] == "ratchet-1"
    assert (call.reply, call.streamed, call.complete, call.face) == (answer.text, True, True, face)


async def test_a_client_may_have_a_call_not_recorded() -> None:
    async with bench() as gateway:
        answer = await gateway.client.post("/v1/chat/completions", json=CHAT, headers={"x-ratchet-capture": "Off"})
        assert "x-ratchet-receipt" not in answer.headers
        assert answer.headers["x-ratchet-adapter"] == "ratchet-1"
        await gateway.client.post("/v1/messages/count_tokens", json=CHAT)
        await asyncio.sleep(0.1)
    assert not gateway.log.messages


async def test_what_ratchet_itself_asks_for_is_not_recorded() -> None:
    message = {"role": "assistant", "content": "Hi."}
    reply = {"model": "ratchet-1", "choices": [{"message": message, "finish_reason": "stop"}]}
    async with bench(whole(200, json.dumps(reply).encode())) as gateway, over_tcp(gateway.app) as client:
        async with PolicyClient(str(client.base_url)) as policy:
            await policy.chat("assistant", [user("Hi.")], Sampling())
        await asyncio.sleep(0.1)
        assert len(gateway.engine.requests) == 1
    assert not gateway.log.messages


async def test_a_response_that_continues_another_has_its_key() -> None:
    first, second = b'{"id": "resp_1"}', b'event: x\ndata: {"response": {"id": "resp_2"}}\n\n'
    async with bench(whole(200, first), stream(second), whole(200, b"{}")) as gateway:
        keys = []
        for body in (
            {"input": "Hi."},
            {"input": "And?", "previous_response_id": "resp_1", "stream": True},
            {"input": "So?", "previous_response_id": "resp_2"},
            {"input": "So?", "previous_response_id": "resp_unknown"},
        ):
            answer = await gateway.client.post("/v1/responses", json={"model": "assistant"} | body)
            keys.append(key_of_receipt(answer.headers["x-ratchet-receipt"]))
    assert keys[0] == keys[1] == keys[2] != keys[3]


@pytest.mark.nightly
async def test_ten_thousand_streams_cut_anywhere_are_passed_and_recorded_as_they_came() -> None:
    """Cut by the engine at a byte of its choice, or left by the client: on the gateway's own ASGI interface."""
    chance, streams = random.Random(7), 10_000
    async with bench(stream(b"x"), capture=CaptureSettings(flush_s=30)) as gateway:
        endpoint = next(r.app for r in gateway.gateway.routes() if r.path == "/v1/chat/completions")
        sent: dict[str, tuple[bytes, bool]] = {}

        async def one(number: int) -> None:
            events = [f"data: {number} {chance.random()} ü\n\n".encode() for _ in range(chance.randrange(1, 6))]
            body = b"".join(events)
            cut = chance.choice([None, chance.randrange(len(body))])
            leaves_after = chance.choice([None, None, chance.randrange(0, 4)])
            whole_body = body if cut is None else body[:cut]
            parts, rest = [], whole_body
            while rest:
                size = chance.randrange(1, len(rest) + 1)
                parts.append(rest[:size])
                rest = rest[size:]
            gateway.gateway.upstream = cast(Upstream, _Source(parts, ends=cut is None))
            receipt, passed, complete = await _ask(endpoint, leaves_after)
            sent[receipt] = (passed, complete)
            if complete:
                assert passed == whole_body
                assert cut is None
            else:
                assert whole_body.startswith(passed)
                assert cut is not None or leaves_after is not None

        for number in range(streams):
            await one(number)
        until(lambda: gateway.capture.status.waiting == 0, "all are recorded")
    records = {record.receipt: record for record in gateway.log.records if isinstance(record, CapturedCall)}
    assert len(records) == streams
    for receipt, (passed, complete) in sent.items():
        record = records[receipt]
        assert record.complete == complete
        assert record.reply == passed.decode(errors="replace")
    assert gateway.alias.in_flight("ratchet-1") == 0


def test_a_full_queue_drops_and_counts_and_goes_on_when_the_log_is_back() -> None:
    log = Log(away=True)
    capture = Capture(CaptureSettings(queue_calls=3, flush_s=5), "calls", log)
    capture.start()
    began = time.monotonic()
    assert [capture.take(taken()) for _ in range(5)] == [True, True, True, False, False]
    assert time.monotonic() - began < 0.5
    assert (capture.status.waiting, capture.status.dropped) == (3, 2)
    log.away = False
    until(lambda: capture.status.published == 3, "the log has them")
    assert capture.take(taken())
    capture.stop()
    assert len(log.messages) == 4
    assert not capture.take(taken())


def test_the_queue_is_bounded_by_bytes_too() -> None:
    capture = Capture(CaptureSettings(queue_bytes=11_000), "calls", Log())
    assert [capture.take(taken(b"x" * 4000)) for _ in range(3)] == [True, True, False]


def test_a_role_that_stops_without_a_log_waits_a_bounded_time() -> None:
    capture = Capture(CaptureSettings(flush_s=0.3), "calls", Log(away=True))
    capture.start()
    capture.take(taken())
    began = time.monotonic()
    capture.stop()
    assert time.monotonic() - began < 2
    assert capture.status.dropped == 1


def test_bodies_that_are_too_large_for_a_record_are_cut_and_marked() -> None:
    record = as_record(taken(b"\x00" * 30_000, b"short"), 20_000)
    assert record.cut_at is not None
    assert record.request == "short"
    assert record.reply == "\0" * record.cut_at
    assert len(record.to_json()) <= 20_000
    assert as_record(taken(), 20_000).cut_at is None


async def test_a_reply_beyond_the_limit_passes_whole_and_is_recorded_cut() -> None:
    parts = [b"data: " + b"x" * 9_000 + b"\n\n"] * 3
    async with bench(stream(*parts), capture=CaptureSettings(max_record_bytes=20_000)) as gateway:
        answer = await gateway.client.post("/v1/chat/completions", json=CHAT | {"stream": True})
        call = gateway.call()
    assert answer.content == b"".join(parts)
    assert call.cut_at is not None
    assert answer.text.startswith(call.reply)
    assert call.complete


def test_a_call_that_is_too_large_for_the_log_keeps_no_other_waiting() -> None:
    class Small(Log):
        def publish(self, messages: Sequence[Outgoing]) -> None:
            if any(len(message.value or b"") > 5_000 for message in messages):
                raise BrokerError("refused") from MessageSizeTooLargeError()
            super().publish(messages)

    log = Small()
    capture = Capture(CaptureSettings(), "calls", log)
    for size in (10, 6_000, 20):
        capture.take(taken(b"x" * size))
    capture.start()
    capture.stop()
    assert (capture.status.published, capture.status.refused, len(log.messages)) == (2, 1, 2)


async def test_what_is_recorded_is_on_the_topic_under_its_key(kafka: KafkaSettings) -> None:
    large = b'{"x": "' + b"x" * 3_000_000 + b'"}'
    settings = CaptureSettings()
    publisher = Publisher(kafka, 10, settings.max_record_bytes, "gateway")
    capture = Capture(settings, kafka.calls_topic, publisher)
    capture.start()
    calls = [taken(large), *(taken() for _ in range(50))]
    for call in calls:
        capture.take(call)
    capture.stop()
    publisher.close()
    records = [ANY_CALL_RECORD.validate_json(value) for value, _ in read_all(kafka, kafka.calls_topic)]
    assert [record.receipt for record in records] == [call.receipt for call in calls]
    assert isinstance(records[0], CapturedCall)
    assert records[0].reply == large.decode()
