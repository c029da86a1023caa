import asyncio
import json
from collections.abc import Callable, Iterator

import httpx
import pytest
from fastapi import FastAPI, Response

from daemon.registry.registry import Registry
from daemon.serving.alias import Alias
from daemon.serving.gateway import Gateway
from daemon.serving.metrics import Metrics
from daemon.serving.store_watch import StoreWatch
from daemon.serving.upstream import Upstream
from ratchet_client.messages import Message
from streams.kafka.settings import KafkaSettings
from streams.policy.client import PolicyClient, Sampling
from streams.store.client import StoreClient
from tests.builders.rotations import in_rotation
from tests.daemon.conftest import serve_role
from tests.served import served
from tests.waiting import eventually

MakeAdapter = Callable[..., str]
CHAT = {"model": "assistant", "messages": [{"role": "user", "content": "open the fridge"}], "temperature": 0}


async def promote(serving: httpx.AsyncClient, digest: str) -> str:
    response = await serving.post("/promote", json={"digest": digest, "reason": "better", "actor": "anna"})
    assert response.is_success, response.text
    return str(response.json()["to_name"])


async def test_agents_ask_for_the_alias_and_the_reply_names_the_model_that_answered(
    serving: httpx.AsyncClient, make_adapter: MakeAdapter
) -> None:
    request = CHAT | {"max_tokens": 4}
    assert (await serving.post("/v1/chat/completions", json=request)).json()["model"] == "base"
    served = await promote(serving, make_adapter(1))
    assert (await serving.post("/v1/chat/completions", json=request)).json()["model"] == served
    await serving.post("/rollback", json={"reason": "complaints", "actor": "anna"})
    assert (await serving.post("/v1/chat/completions", json=request)).json()["model"] == "base"


async def test_the_alias_is_the_only_model_that_is_served(serving: httpx.AsyncClient) -> None:
    assert [model["id"] for model in (await serving.get("/v1/models")).json()["data"]] == ["assistant"]
    assert (await serving.get("/v1/models/assistant")).json()["id"] == "assistant"
    for other in ("base", "org/model"):
        response = await serving.get(f"/v1/models/{other}")
        assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
        assert "assistant" in response.json()["error"]["message"]
    for name in ("base", "ratchet-1-3f9c0a12b4de", None):
        response = await serving.post("/v1/chat/completions", json=CHAT | {"model": name})
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("body", [b"not json", b"[]", b"{}"])
async def test_a_malformed_request_is_refused(body: bytes, serving: httpx.AsyncClient) -> None:
    response = await serving.post("/v1/chat/completions", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_errors_of_the_inference_server_are_passed_on_unchanged(
    serving: httpx.AsyncClient, policy: PolicyClient
) -> None:
    wrong = CHAT | {"temperature": -1}
    response = await serving.post("/v1/chat/completions", json=wrong)
    async with httpx.AsyncClient(base_url=policy.base_url) as client:
        direct = await client.post("/v1/chat/completions", json=wrong | {"model": "base"})
    assert (response.status_code, response.json()) == (direct.status_code, direct.json())
    assert response.status_code == 400


async def test_completions_pass_through_too(serving: httpx.AsyncClient) -> None:
    request = {"model": "assistant", "prompt": "You are", "max_tokens": 3, "temperature": 0}
    assert (await serving.post("/v1/completions", json=request)).json()["model"] == "base"


@pytest.mark.parametrize("stream", [False, True])
async def test_tool_calls_pass_through_in_both_directions(serving: httpx.AsyncClient, stream: bool) -> None:
    place = {"type": "object", "properties": {"to": {"enum": ["Oslo"]}}, "required": ["to"]}
    function = {"name": "find_route", "parameters": place | {"additionalProperties": False}, "strict": True}
    call = {"id": "call_1", "type": "function", "function": {"name": "find_route", "arguments": '{"to": "Oslo"}'}}
    request = CHAT | {
        "messages": [
            {"role": "developer", "content": "Help."},
            {"role": "user", "content": [{"type": "text", "text": "To Oslo."}], "name": "anna"},
            {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "annotations": []},
            {"role": "tool", "tool_call_id": "call_1", "content": "Closed."},
        ],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "find_route"}},
        "response_format": None,
        "max_tokens": 60,
        "stream": stream,
    }
    answer = await serving.post("/v1/chat/completions", json=request)
    assert answer.status_code == 200, answer.text
    if stream:
        events = [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: {")]
        calls = [each for event in events for each in event["choices"][0]["delta"].get("tool_calls", ())]
        assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"
    else:
        (choice,) = answer.json()["choices"]
        assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
        calls = choice["message"]["tool_calls"]
    assert [each["function"] for each in calls] == [{"name": "find_route", "arguments": '{"to": "Oslo"}'}]


async def test_a_stream_that_began_before_a_promotion_ends_on_the_same_model(
    serving: httpx.AsyncClient, policy: PolicyClient, make_adapter: MakeAdapter
) -> None:
    old, successor = await promote(serving, make_adapter(1)), make_adapter(2)
    request = CHAT | {"stream": True, "max_tokens": 400}
    async with serving.stream("POST", "/v1/chat/completions", json=request) as stream:
        lines = stream.aiter_lines()
        chunks = [await anext(lines)]
        promotion = asyncio.create_task(promote(serving, successor))
        chunks += [line async for line in lines]
    assert chunks[-2] == "data: [DONE]"
    replies = [json.loads(line.removeprefix("data: ")) for line in chunks if line.startswith("data: {")]
    assert {reply["model"] for reply in replies} == {old}
    assert replies[-1]["choices"][0]["finish_reason"] in ("stop", "length")
    new = await promotion
    names = {model.name for model in await policy.models()}
    assert new in names
    assert old not in names
    assert (await serving.get("/status")).json()["in_flight"] == 0


async def test_a_client_that_abandons_a_stream_does_not_delay_a_promotion(
    serving: httpx.AsyncClient, make_adapter: MakeAdapter
) -> None:
    await promote(serving, make_adapter(1))
    async with serving.stream(
        "POST", "/v1/chat/completions", json=CHAT | {"stream": True, "max_tokens": 1500}
    ) as stream:
        await anext(stream.aiter_lines())
    await promote(serving, make_adapter(2))


@pytest.mark.slow
async def test_an_adapter_that_the_server_lost_is_loaded_again_under_a_new_name(
    serving: httpx.AsyncClient, policy: PolicyClient, make_adapter: MakeAdapter
) -> None:
    lost = await promote(serving, make_adapter(1))
    await policy.unload_adapter(lost)
    answers: list[httpx.Response] = []

    async def is_back() -> bool:
        answers.append(await serving.post("/v1/chat/completions", json=CHAT | {"max_tokens": 2}))
        return answers[-1].is_success

    await eventually(is_back)
    *refusals, answer = answers
    assert all((each.status_code, each.headers["Retry-After"]) == (503, "2") for each in refusals)
    assert answer.json()["model"].endswith(lost[-12:])
    assert answer.json()["model"] != lost


@pytest.mark.parametrize("end", ["/v1", "/", "/v1/"])
async def test_the_url_of_the_inference_server_may_end_as_openais_clients_write_it(
    inference_url: str, registry: Registry, end: str
) -> None:
    async with serve_role(registry, inference_url + end) as serving:
        answer = await serving.post("/v1/chat/completions", json=CHAT | {"max_tokens": 2})
        assert (answer.status_code, answer.json()["model"]) == (200, "base")
    async with PolicyClient(inference_url + end) as policy:
        assert "base" in {model.name for model in await policy.models()}
        assert len(await policy.chat("base", [Message(role="user", content="go")], Sampling(max_tokens=2))) == 1


@pytest.fixture
def dying_server() -> Iterator[str]:
    """A double, for a fault that the real server does not produce on demand: it dies while it answers."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    def die() -> Response:
        return Response(b"{", headers={"content-length": "1000", "content-type": "application/json"})

    @app.get("/v1/models")
    def models() -> dict[str, object]:
        return {"data": [{"id": "base", "root": "base", "parent": None}]}

    with served(app) as address:
        yield address


async def test_an_unavailable_or_dying_server_is_a_503_that_says_when_to_try_again(
    dying_server: str, registry: Registry
) -> None:
    for url in (dying_server, "http://127.0.0.1:9"):
        alias = Alias("assistant")
        alias.point_to("base", "base")
        app = FastAPI()
        metrics = Metrics(registry, alias, StoreWatch(StoreClient("http://127.0.0.1:9"), KafkaSettings()))
        async with Upstream(in_rotation(url), 10) as upstream:
            app.router.routes += Gateway(alias, upstream, metrics.gateway_requests).routes()
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
                response = await client.post("/v1/chat/completions", json=CHAT)
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) > 0
        assert alias.in_flight("base") == 0
        assert b'ratchet_gateway_requests_total{status="503"} 1.0' in metrics.expose()
