"""Ratchet over one vLLM: its key, its name for the base model, promotion, attestation, and what comes when it goes."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from daemon.registry.registry import Registry
from daemon.serving.settings import PromotionSettings
from evaluation.settings import ProbeSettings
from streams.policy.client import PolicyClient
from tests.builders.asking import CHAT, asking, change, replicas
from tests.builders.engines import VllmEngine
from tests.daemon.conftest import serve_role
from tests.vllm.conftest import BASE_NAME, KEY
from tests.waiting import eventually

MakeAdapter = Callable[..., str]
OWN: dict[str, Any] = {"engine_key": SecretStr(KEY), "base_name": BASE_NAME}


@asynccontextmanager
async def gateway(registry: Registry, engine: VllmEngine, **parts: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with serve_role(registry, engine.url + "/v1", **OWN, **parts) as client:
        yield client


async def test_twenty_promotions_and_rollbacks_while_clients_ask_lose_no_request_and_mix_no_adapters(
    first: VllmEngine, registry: Registry, make_adapter: MakeAdapter
) -> None:
    adapters = [make_adapter(seed) for seed in range(10)]
    names = {BASE_NAME}
    async with gateway(registry, first) as client, asking(client) as answered:
        for adapter in adapters:
            promoted = await change(client, "/promote", digest=adapter)
            await answered.more(4)
            await change(client, "/rollback")
            await change(client, "/resume")
            names.add(promoted["to_name"])
    assert answered.failures == []
    assert set(answered.texts) == names
    assert {name: len(texts) for name, texts in answered.texts.items()} == dict.fromkeys(names, 1)


@pytest.mark.parametrize(("scale", "trained_scale"), [(0.0, 0.3), (0.3, 0.0)])
async def test_an_adapter_that_is_not_served_as_it_was_trained_is_refused(
    scale: float, trained_scale: float, first: VllmEngine, registry: Registry, make_adapter: MakeAdapter
) -> None:
    async with gateway(registry, first) as client:
        wrong = make_adapter(3, scale=scale, trained_scale=trained_scale)
        answer = await client.post("/promote", json={"digest": wrong, "reason": "a test", "actor": "anna"})
        assert answer.status_code == 409
        assert "base still serves" in answer.json()["error"]["message"]
        assert (await client.post("/v1/chat/completions", json=CHAT)).json()["model"] == BASE_NAME


async def test_more_adapters_than_slots_are_served_one_after_the_other(
    first: VllmEngine, registry: Registry, make_adapter: MakeAdapter
) -> None:
    async with PolicyClient(first.url, token=KEY, base_name=BASE_NAME) as policy, gateway(registry, first) as client:
        others = [make_adapter(seed) for seed in range(first.max_loras + 1)]
        names = [registry.name(each, "learner", "to fill the slots") for each in others]
        for name, each in zip(names, others, strict=True):
            await policy.load_adapter(name, str(registry.adapter_folder(each)))
        champion = (await change(client, "/promote", digest=make_adapter(20)))["to_name"]
        assert (await client.post("/v1/chat/completions", json=CHAT)).json()["model"] == champion
        for name in names:
            await policy.unload_adapter(name)


async def test_an_adapter_that_becomes_a_silent_no_op_is_found_and_loaded_again(
    first: VllmEngine, registry: Registry, make_adapter: MakeAdapter
) -> None:
    often = PromotionSettings(probe=ProbeSettings(every_s=0.5))
    noop = registry.adapter_folder(make_adapter(2, scale=0.0))
    async with (
        PolicyClient(first.url, token=KEY) as policy,
        gateway(registry, first, promotion=often) as client,
    ):
        champion = (await change(client, "/promote", digest=make_adapter(1)))["to_name"]
        await policy.unload_adapter(champion)
        await policy.load_adapter(champion, str(noop))

        async def is_cured() -> bool:
            answer = await client.post("/v1/chat/completions", json=CHAT)
            return answer.is_success and answer.json()["model"] not in (champion, BASE_NAME)

        await eventually(is_cured)
        assert champion not in {model.name for model in await policy.models()}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"base_name": "other"}, "has no model 'other'"), ({"engine_key": SecretStr("x")}, "engine.api_key")],
)
async def test_status_says_what_is_wrong_with_the_name_or_the_key(
    wrong: dict[str, Any], words: str, first: VllmEngine, registry: Registry
) -> None:
    async with gateway(registry, first) as right:
        assert (await right.post("/v1/chat/completions", json=CHAT)).is_success
    async with serve_role(registry, first.url, waits=False, **OWN | wrong) as client:

        async def is_told() -> bool:
            return words in (await replicas(client))[0]["reason"]

        await eventually(is_told)
        assert (await client.get("/status")).json()["served"] is None
        answer = await client.post("/v1/chat/completions", json=CHAT)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")


async def test_a_hung_server_is_a_503_until_it_goes_on(first: VllmEngine, registry: Registry) -> None:
    async with gateway(registry, first) as client:
        first.signal(signal.SIGSTOP)
        try:

            async def is_refused() -> bool:
                return bool((await replicas(client))[0]["reason"])

            await eventually(is_refused)
            assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 503
        finally:
            first.signal(signal.SIGCONT)

        async def answers() -> bool:
            return (await client.post("/v1/chat/completions", json=CHAT)).is_success

        await eventually(answers)


async def test_a_server_that_ends_cuts_no_client_for_long_and_its_champion_is_brought_up_after_its_restart(
    first: VllmEngine, registry: Registry, make_adapter: MakeAdapter
) -> None:
    async with gateway(registry, first) as client:
        champion = (await change(client, "/promote", digest=make_adapter(1)))["to_name"]
        long = CHAT | {"max_tokens": 1900, "ignore_eos": True}
        asked = [asyncio.create_task(client.post("/v1/chat/completions", json=long)) for _ in range(3)]

        async def in_flight() -> bool:
            return bool((await replicas(client))[0]["in_flight"] == 3)

        await eventually(in_flight)
        assert first.process is not None
        first.process.terminate()
        ended = await asyncio.gather(*asked)
        assert {answer.status_code for answer in ended} <= {200, 500, 503}
        first.kill()
        await asyncio.to_thread(first.start)

        async def serves() -> bool:
            answer = await client.post("/v1/chat/completions", json=CHAT)
            return answer.is_success and answer.json()["model"].endswith(champion[-12:])

        await eventually(serves)
