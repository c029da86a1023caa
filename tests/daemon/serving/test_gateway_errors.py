"""Every error at the gateway has OpenAI's body and is counted, from the gateway and from the server behind it."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI, Response
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from daemon.registry.registry import Registry
from daemon.serving.alias import Alias
from daemon.serving.gateway import Gateway
from daemon.serving.metrics import Metrics
from daemon.serving.replicas import Replicas
from daemon.serving.store_watch import StoreWatch
from daemon.serving.upstream import Upstream
from streams.kafka.settings import KafkaSettings
from streams.runtime.http_errors import ErrorReply
from streams.store.client import StoreClient
from tests.builders.rotations import in_rotation
from tests.served import served

CHAT: dict[str, Any] = {
    "model": "assistant",
    "messages": [{"role": "user", "content": "open the fridge"}],
    "temperature": 0,
    "max_tokens": 4,
}
JSON = {"content-type": "application/json"}


async def count(serving: httpx.AsyncClient, status: int) -> float:
    """How many requests the metrics say were answered with `status`."""
    found = re.search(rf'^ratchet_gateway_requests_total{{status="{status}"}} (\S+)$', await exposed(serving), re.M)
    return float(found[1]) if found else 0.0


async def exposed(serving: httpx.AsyncClient) -> str:
    return (await serving.get("/metrics")).text


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"null",
            b"[]",
            b"1",
            b"{",
            b"\xff",
            b'{"model": "assistant", "n": NaN}',
            b'{"model": "assistant", "n": 1e999}',
        ),
        *(
            rb'{"model": "assistant", "user": "\ud800"}',
            rb'{"model": "assistant", "\ud800": 1}',
            rb'{"model": "\ud800"}',
        ),
        *(b'{"model": "assistant", "n": ' + nested for nested in (b"[" * 100_000 + b"]" * 100_000, b"9" * 5000)),
        *(
            b'{"model": "assistant", "seed": 18446744073709551616, "messages": []}',
            b'{"model": "assistant", "model": 1}',
        ),
        *(b'{"model": ["assistant"]}', b'{"model": 5}', b'{"model": {"a": 1}}', b'{"model": true}'),
    ],
)
async def test_a_request_that_cannot_be_served_is_a_400_and_counted(
    serving: httpx.AsyncClient, path: str, body: bytes
) -> None:
    before = await count(serving, 400)
    answer = await serving.post(path, content=body, headers=JSON)
    assert answer.status_code == 400
    assert ErrorReply.model_validate_json(answer.content).error.type == "invalid_request_error"
    assert await count(serving, 400) == before + 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("GET", "/v1/chat/completions", 405), ("DELETE", "/v1/models", 405), ("HEAD", "/v1/completions", 405)),
        *(("GET", "/v1", 404), ("GET", "/v1/", 404), ("POST", "/v1/embeddings", 404), ("PUT", "/v1/%ED%A0%80", 404)),
    ],
)
async def test_a_wrong_path_or_method_is_answered_and_counted(
    serving: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    before = await count(serving, status)
    answer = await serving.request(method, path)
    assert answer.status_code == status
    if method != "HEAD":
        assert ErrorReply.model_validate_json(answer.content).error.type == "invalid_request_error"
    assert (status == 405) == ("allow" in answer.headers)
    assert await count(serving, status) == before + 1


async def test_an_unknown_model_is_counted_and_a_slash_at_the_end_is_redirected(serving: httpx.AsyncClient) -> None:
    before = await count(serving, 404)
    assert (await serving.post("/v1/chat/completions", json=CHAT | {"model": "x" * 10_000})).status_code == 404
    assert await count(serving, 404) == before + 1
    answer = await serving.get("/v1/models/")
    assert (answer.status_code, httpx.URL(answer.headers["location"]).path) == (307, "/v1/models")


async def test_replies_at_the_gateway_are_complete_by_openais_specification(serving: httpx.AsyncClient) -> None:
    answer = await serving.post("/v1/chat/completions", json=CHAT | {"tools": [], "stream_options": None})
    ChatCompletion.model_validate_json(answer.content, strict=True)
    for card in (await serving.get("/v1/models")).json()["data"]:
        Model.model_validate(card, strict=True)
    answer = await serving.post("/v1/chat/completions", json=CHAT | {"stream": True})
    for line in answer.text.splitlines():
        if line.startswith("data: {"):
            ChatCompletionChunk.model_validate_json(line.removeprefix("data: "), strict=True)


async def test_the_sdk_itself_talks_to_the_gateway(serving: httpx.AsyncClient) -> None:
    client = openai.AsyncOpenAI(
        base_url=str(serving.base_url.join("/v1")), api_key="none", max_retries=0, _strict_response_validation=True
    )
    async with client:
        assert [model.id async for model in client.models.list()] == ["assistant"]
        body: Any = CHAT
        reply = await client.chat.completions.create(**body)
        messages = [*CHAT["messages"], reply.choices[0].message.model_dump(), {"role": "user", "content": "You see."}]
        assert (await client.chat.completions.create(**body | {"messages": messages})).model == "base"
        with pytest.raises(openai.BadRequestError, match="best_of"):
            await client.chat.completions.create(**body, extra_body={"best_of": 2})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/promote", rb'{"digest": "base", "reason": "\ud800", "actor": "anna"}'),
        ("/rollback", rb'{"reason": "x", "actor": "\udfff"}'),
        ("/rollback", b'{"reason": "x", "actor": NaN}'),
        ("/rollback", b'{"reason": "x", "actor": "anna", "to": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        ("/cycles", b'{"seconds": 1e999}'),
        *((path, body) for path in ("/promote", "/rollback", "/cycles") for body in (b"", b"{", b"\xff", b"[")),
    ],
)
async def test_the_control_api_refuses_such_bodies_too(serving: httpx.AsyncClient, path: str, body: bytes) -> None:
    answer = await serving.post(path, content=body, headers=JSON)
    assert (answer.status_code, ErrorReply.model_validate_json(answer.content).error.code) == (400, "invalid_json")


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1" + "0" * 5000, "nan", "%ED%A0%80"])
async def test_a_limit_that_is_not_a_number_of_entries_is_refused(serving: httpx.AsyncClient, limit: str) -> None:
    answer = await serving.get(f"/history?limit={limit}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "limit")
    assert (await serving.get(f"/history?limit={10**30}")).status_code == 200


@pytest.fixture
def odd_server() -> Iterator[str]:
    """A double, for faults that the real server does not produce on demand: odd errors, a reply that is cut off."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def fail(body: dict[str, Any]) -> Response:
        content, status = {
            "plain": (b"Internal Server Error", 500),
            "html": (b"<html>Bad Gateway</html>", 502),
            "foreign": (b'{"detail": "too long"}', 400),
            "timeout": (b"", 504),
            "cut": (b"data: {", 200),
        }[body["user"]]
        length = {"content-length": "1000"} if body["user"] == "cut" else {}
        return Response(content, status, headers={"content-type": "text/plain", **length})

    with served(app) as address:
        yield address


@pytest.fixture
def replicas(odd_server: str) -> Replicas:
    return in_rotation(odd_server)


@pytest.fixture
async def gateway(replicas: Replicas, registry: Registry) -> AsyncIterator[tuple[httpx.AsyncClient, Metrics, Alias]]:
    """The gateway in front of it."""
    alias, app = Alias("assistant"), FastAPI()
    alias.point_to("base", "base")
    metrics = Metrics(registry, alias, StoreWatch(StoreClient("http://127.0.0.1:9"), KafkaSettings()))
    async with Upstream(replicas, 10) as upstream:
        app.router.routes += Gateway(alias, upstream, metrics.gateway_requests).routes()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            yield client, metrics, alias


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [
        ("plain", 500, "Internal Server Error"),
        ("html", 502, "Bad Gateway"),
        ("timeout", 504, ""),
    ],
)
async def test_an_error_of_the_inference_server_without_openais_body_gets_it_and_is_counted(
    gateway: tuple[httpx.AsyncClient, Metrics, Alias], kind: str, status: int, words: str
) -> None:
    client, metrics, alias = gateway
    answer = await client.post("/v1/chat/completions", json=CHAT | {"user": kind})
    assert answer.status_code == status
    assert words in ErrorReply.model_validate_json(answer.content).error.message
    assert f'ratchet_gateway_requests_total{{status="{status}"}} 1.0' in metrics.expose().decode()
    assert alias.in_flight("base") == 0


async def test_an_error_in_json_is_passed_on_as_it_is(gateway: tuple[httpx.AsyncClient, Metrics, Alias]) -> None:
    answer = await gateway[0].post("/v1/chat/completions", json=CHAT | {"user": "foreign"})
    assert (answer.status_code, answer.content) == (400, b'{"detail": "too long"}')


async def test_an_unexpected_error_of_the_gateway_is_a_counted_500_with_openais_body(
    gateway: tuple[httpx.AsyncClient, Metrics, Alias], replicas: Replicas
) -> None:
    client, metrics, _ = gateway
    replicas.first.hold("base", object(), 0.0)  # type: ignore[arg-type]  # it cannot be written as JSON
    answer = await client.post("/v1/chat/completions", json=CHAT)
    error = ErrorReply.model_validate_json(answer.content).error
    assert (answer.status_code, error.type, error.code) == (500, "server_error", "internal_server_error")
    assert "object" not in error.message
    assert b'ratchet_gateway_requests_total{status="500"} 1.0' in metrics.expose()


async def test_a_stream_that_the_inference_server_cuts_off_ends_with_an_error_event(
    gateway: tuple[httpx.AsyncClient, Metrics, Alias],
) -> None:
    client, _, alias = gateway
    answer = await client.post("/v1/chat/completions", json=CHAT | {"user": "cut", "stream": True})
    last = answer.text.strip().splitlines()[-1]
    assert ErrorReply.model_validate(json.loads(last.removeprefix("data: "))).error.type == "server_error"
    assert alias.in_flight("base") == 0
