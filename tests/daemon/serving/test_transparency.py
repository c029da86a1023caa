"""The gateway as a proxy: what goes in comes out, but for the model's name and what is the gateway's own."""

import asyncio
import gzip
import json
import zlib
from contextlib import suppress

import pytest

from streams.calls.records import Face
from tests.daemon.serving.upstream import CHAT, bench, over_tcp, stream, whole
from tests.waiting import eventually

PATHS = [face.value for face in Face]


@pytest.mark.parametrize("path", [*PATHS, "/v1/messages/count_tokens"])
async def test_a_request_is_passed_on_as_it_came_but_for_the_model(path: str) -> None:
    body = b'{"n": 1.0, "x": {"model": "a"}, "e": 1e2,\n "model" : "assistant", "s": "\\u00fc \\"model\\": \\"a\\""}'
    async with bench(whole(200, b'{"id": "1"}')) as gateway:
        answer = await gateway.client.post(f"{path}?beta=true&x=%2F", content=body)
        assert (answer.status_code, answer.content) == (200, b'{"id": "1"}')
        assert answer.headers["x-ratchet-adapter"] == "ratchet-1"
    ((line, _, sent),) = gateway.engine.requests
    assert line == f"POST {path}?beta=true&x=%2F HTTP/1.1"
    assert sent == body.replace(b'"model" : "assistant"', b'"model" : "ratchet-1"')


@pytest.mark.parametrize(
    "body",
    [
        b'{"metadata": {"model": "assistant"}, "mod\\u0065l": "assistant"}',
        b'{"a": "\\\\", "model":"assistant", "tools": [{"model": "assistant"}]}',
        b'\xef\xbb\xbf{"x": "\\"model\\": \\"assistant\\"", "model": "assist\\u0061nt"}',
        b'{"x\\"model": "assistant", "model": "assistant"}',
    ],
)
async def test_only_the_requests_own_model_is_replaced(body: bytes) -> None:
    async with bench() as gateway:
        assert (await gateway.client.post("/v1/chat/completions", content=body)).status_code == 200
    expected = json.loads(body.decode("utf-8-sig")) | {"model": "ratchet-1"}
    assert json.loads(gateway.engine.requests[0][2]) == expected


async def test_headers_pass_but_for_those_of_the_connection_and_the_gateways_own() -> None:
    answered = whole(
        200,
        b"{}",
        "x-request-id: up-1",
        "openai-processing-ms: 7",
        "Keep-Alive: timeout=5",
        "X-Hop: 1",
        "connection: X-Hop",
    )
    async with bench(answered) as gateway:
        sent = {
            **{"authorization": "Bearer engine-key", "anthropic-version": "2023-06-01", "traceparent": "00-a-b-01"},
            **{
                "x-request-id": "mine",
                "x-ratchet-episode": "e-1",
                "te": "trailers",
                "x-hop": "1",
                "connection": "x-hop",
            },
            **{"user-agent": "agent/1"},
        }
        answer = await gateway.client.post("/v1/chat/completions", json=CHAT, headers=sent)
    _, got, _ = gateway.engine.requests[0]
    for name in ("authorization", "anthropic-version", "traceparent", "x-request-id", "user-agent", "content-type"):
        assert got[name] == (sent | {"content-type": "application/json"})[name]
    assert not {"te", "x-hop", "x-ratchet-episode"} & got.keys()
    assert got["host"] != "gateway"
    assert answer.headers["x-request-id"] == "up-1"
    assert answer.headers["openai-processing-ms"] == "7"
    assert answer.headers["content-length"] == "2"
    assert not {"keep-alive", "x-hop", "connection"} & answer.headers.keys()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/nothing"])
async def test_every_reply_has_a_request_id(path: str) -> None:
    async with bench() as gateway:
        made = (await gateway.client.post(path, json=CHAT)).headers["x-request-id"]
        assert len(made) == 36
        answer = await gateway.client.post(path, json=CHAT | {"model": "other"}, headers={"x-request-id": "mine"})
        assert answer.headers["x-request-id"] == "mine"
        assert ("request-id" in answer.headers) == (path == "/v1/messages")


@pytest.mark.parametrize("status", [400, 404, 409, 422, 429, 500, 503, 529])
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_error_passes_with_its_status_body_and_headers(status: int, streamed: bool) -> None:
    body = b'{"error": {"message": "response resp_1 not found",  "type": "odd", "code": 7}}'
    async with bench(whole(status, body, "retry-after: 9")) as gateway:
        answer = await gateway.client.post(
            "/v1/responses", json={"model": "assistant", "input": "x", "stream": streamed}
        )
        assert (answer.status_code, answer.content, answer.headers["retry-after"]) == (status, body, "9")
        assert "x-ratchet-receipt" not in answer.headers
        await asyncio.sleep(0.05)
        assert not gateway.log.messages
        assert gateway.alias.in_flight("ratchet-1") == 0


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "The model `ratchet-1` does not exist.", "type": "NotFoundError", "code": 404}},
        {"object": "error", "message": "The model `ratchet-1` does not exist.", "type": "NotFoundError", "code": 404},
        {"error": {"message": "gone", "code": "model_not_found"}},
        {"type": "error", "error": {"type": "not_found_error", "message": "model: ratchet-1"}},
        {"error": 'model "ratchet-1" not found, try pulling it first'},
    ],
)
async def test_a_404_that_says_the_adapter_is_lost_is_a_503(body: object) -> None:
    async with bench(whole(404, json.dumps(body).encode())) as gateway:
        answer = await gateway.client.post("/v1/chat/completions", json=CHAT)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_compressed_request_is_read(encoding: str) -> None:
    body = json.dumps(CHAT).encode()
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    async with bench() as gateway:
        headers = {"content-encoding": encoding}
        answer = await gateway.client.post("/v1/chat/completions", content=packed, headers=headers)
        assert answer.status_code == 200
        cut = await gateway.client.post("/v1/chat/completions", content=packed[:-3], headers=headers)
        odd = await gateway.client.post("/v1/chat/completions", content=packed, headers={"content-encoding": "br"})
        assert (cut.status_code, odd.status_code) == (400, 415)
    ((_, headers, sent),) = gateway.engine.requests
    assert json.loads(sent) == CHAT | {"model": "ratchet-1"}
    assert "content-encoding" not in headers


async def test_anthropics_clients_get_anthropics_errors() -> None:
    async with bench(max_request_bytes=200) as gateway:
        for body, status, kind in (
            (b"{", 400, "invalid_request_error"),
            (b'{"model": "gpt"}', 404, "not_found_error"),
            (b" " * 300, 413, "request_too_large"),
        ):
            answer = await gateway.client.post("/v1/messages", content=body)
            assert (answer.status_code, answer.json()["type"]) == (status, "error")
            assert answer.json()["error"]["type"] == kind
            assert answer.json()["error"]["message"]
        gateway.alias.served = None
        answer = await gateway.client.post("/v1/messages/count_tokens", json=CHAT)
        assert (answer.status_code, answer.json()["error"]["type"]) == (503, "overloaded_error")


async def test_requests_about_an_earlier_response_pass() -> None:
    async with bench(whole(200, b'{"id": "resp_1"}')) as gateway:
        assert (await gateway.client.get("/v1/responses/resp_1?include=x")).json() == {"id": "resp_1"}
        assert (await gateway.client.delete("/v1/responses/resp_1")).status_code == 200
        await gateway.client.post("/v1/responses/resp_1/cancel", json={})
    lines = [line for line, _, _ in gateway.engine.requests]
    assert lines == [
        "GET /v1/responses/resp_1?include=x HTTP/1.1",
        "DELETE /v1/responses/resp_1 HTTP/1.1",
        "POST /v1/responses/resp_1/cancel HTTP/1.1",
    ]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_server_that_is_silent_for_too_long_is_a_504_or_an_error_event(streamed: bool) -> None:
    answered = stream(b"data: {}\n\n", ends=False) if streamed else whole(200, b"{}")
    async with bench([answered[0]] if streamed else [b"HTTP/1.1 200 OK\r\n"], pause_s=3, timeout_s=0.2) as gateway:
        answer = await gateway.client.post("/v1/messages", json=CHAT | {"stream": streamed})
    if streamed:
        assert answer.status_code == 200
        assert answer.text.strip().startswith("event: error\ndata: {")
        assert gateway.log.records[0].complete is False  # type: ignore[union-attr]
    else:
        assert (answer.status_code, answer.json()["error"]["type"]) == (504, "api_error")


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_leaves_ends_the_request_at_the_server(streamed: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"
    kind = b"content-type: text/event-stream\r\n\r\n" if streamed else b"\r\n"
    async with bench([head + kind, *[b"a\r\ndata: {}\n\n\r\n"] * 500], pause_s=0.02) as gateway:
        async with over_tcp(gateway.app) as client:
            with suppress(TimeoutError):
                async with (
                    asyncio.timeout(0.3),
                    client.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": streamed}) as answer,
                ):
                    await answer.aread()
            await eventually(lambda: gateway.engine.left, "the engine is left", within_s=5)
        assert gateway.alias.in_flight("ratchet-1") == 0
        if streamed:
            call = gateway.call()
            assert not call.complete
            assert call.reply.startswith("data: {}\n\n")
        else:
            assert not gateway.log.messages


async def test_tokens_are_asked_for_and_stay_here() -> None:
    tokens = {"anna": "a" * 16, "ben": "b" * 16}
    async with bench(whole(200, b"{}"), tokens=tokens) as gateway:
        ask = gateway.client
        for headers in ({}, {"authorization": "Bearer x"}, {"authorization": "a" * 16}, {"x-api-key": "é"}):
            encoded = {name.encode(): value.encode() for name, value in headers.items()}
            answer = await ask.post("/v1/chat/completions", json=CHAT, headers=encoded)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        assert (await ask.post("/v1/messages", json=CHAT)).json()["error"]["type"] == "authentication_error"
        assert (await ask.get("/v1/models")).status_code == 401
        assert (await ask.post("/v1/feedback", json={})).status_code == 401
        headers = {"x-api-key": "b" * 16, "x-ratchet-principal": "anna"}
        assert (await ask.post("/v1/messages", json=CHAT, headers=headers)).status_code == 200
        call = gateway.call()
        assert (call.labels.principal, call.authenticated) == ("ben", True)
    ((_, got, _),) = gateway.engine.requests
    assert not {"authorization", "x-api-key"} & got.keys()


async def test_one_card_serves_both_kinds_of_clients() -> None:
    async with bench() as gateway:
        listed = (await gateway.client.get("/v1/models")).json()
        assert listed["first_id"] == listed["data"][0]["id"] == "assistant"
        assert {"object", "created", "owned_by", "type", "display_name", "created_at"} <= listed["data"][0].keys()
