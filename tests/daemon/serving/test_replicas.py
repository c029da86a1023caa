"""Two embedded servers behind one gateway: one may go, restart or fail, and no request does."""

import json
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from daemon.registry.instance import instance_of
from daemon.registry.registry import Registry
from daemon.serving.settings import PromotionSettings
from evaluation.settings import ProbeSettings
from tests.builders.asking import CHAT, asking, change, replicas
from tests.builders.engines import Engine
from tests.daemon.conftest import serve_role
from tests.served import served
from tests.waiting import eventually

MakeAdapter = Callable[..., str]
OFTEN = PromotionSettings(probe=ProbeSettings(every_s=0.5), drain_timeout_s=10)


@asynccontextmanager
async def gateway(registry: Registry, first: str, *others: str, **parts: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with serve_role(registry, first, replica_urls=others, **parts) as client:

        async def all_serve() -> bool:
            return not any(replica["reason"] for replica in await replicas(client))

        await eventually(all_serve, "all servers are in the rotation")
        yield client


async def answers_of(client: httpx.AsyncClient) -> dict[str, float]:
    """How many attestations each server passed, by its address."""
    return {replica["url"]: replica["attested"] for replica in await replicas(client)}


@pytest.mark.slow
async def test_promotions_and_rollbacks_over_two_servers_lose_no_request_and_mix_no_adapters(
    engines: tuple[Engine, Engine], registry: Registry, make_adapter: MakeAdapter
) -> None:
    adapters = [make_adapter(seed) for seed in range(5)]
    async with gateway(registry, *(engine.url for engine in engines)) as client, asking(client) as answered:
        names = {"base"}
        for adapter in adapters:
            promoted = await change(client, "/promote", digest=adapter)
            assert {each for replica in await replicas(client) for each in replica["models"]} >= {promoted["to_name"]}
            await answered.more(4)
            back = await change(client, "/rollback")
            await change(client, "/resume")
            names |= {promoted["to_name"], back["to_name"]}
    assert answered.failures == []
    assert set(answered.texts) <= names
    # Greedy replies: one text for each adapter, whichever server gave it and whatever was changed meanwhile.
    assert {name: len(texts) for name, texts in answered.texts.items()} == dict.fromkeys(answered.texts, 1)


@pytest.mark.slow
async def test_a_conversation_stays_at_one_server_and_both_are_used(
    engines: tuple[Engine, Engine], registry: Registry, make_adapter: MakeAdapter
) -> None:
    async with gateway(registry, *(engine.url for engine in engines)) as client:

        async def decoded() -> list[int]:
            return [int((await client.get(f"{engine.url}/stats")).json()["decoded"]) for engine in engines]

        used = set()
        for number in range(8):
            before = await decoded()
            for _ in range(3):
                headers = {"x-ratchet-conversation": f"conversation-{number}"}
                assert (await client.post("/v1/chat/completions", json=CHAT, headers=headers)).is_success
            busy = [after > earlier for earlier, after in zip(before, await decoded(), strict=True)]
            assert sum(busy) == 1
            used.add(busy.index(True))
    assert used == {0, 1}


@pytest.mark.nightly
async def test_a_server_that_dies_and_restarts_is_brought_up_again_without_touching_the_other(
    engines: tuple[Engine, Engine], registry: Registry, make_adapter: MakeAdapter
) -> None:
    first, second = engines
    async with gateway(registry, first.url, second.url) as client:
        champion = (await change(client, "/promote", digest=make_adapter(1)))["to_name"]
        attested = await answers_of(client)
        second.kill()
        async with asking(client) as answered:
            await answered.more(20)

            async def is_out() -> bool:
                return bool((await replicas(client))[1]["reason"])

            await eventually(is_out)
            second.start()

            async def is_back() -> bool:
                return (
                    not (await replicas(client))[1]["reason"]
                    and (await answers_of(client))[second.url] > attested[second.url]
                )

            await eventually(is_back)
            await answered.more(20)
        assert answered.failures == []
        assert len({text for texts in answered.texts.values() for text in texts}) == 1
        assert all(name.endswith(champion[-12:]) for name in answered.texts)
        assert (await answers_of(client))[first.url] == attested[first.url]
        assert (await client.get("/status")).json()["served"] == champion
        metrics = (await client.get("/metrics")).text
        assert f'ratchet_engine_in_rotation{{url="{second.url}"}} 1.0' in metrics


@pytest.mark.nightly
async def test_the_first_server_alone_is_asked_under_the_name_that_it_has(
    engines: tuple[Engine, Engine], registry: Registry, make_adapter: MakeAdapter
) -> None:
    first, second = engines
    async with gateway(registry, first.url, second.url) as client:
        champion = (await change(client, "/promote", digest=make_adapter(1)))["to_name"]
        first.kill()
        first.start()

        async def has_it() -> bool:
            status = (await client.get("/status")).json()
            return status["served"] != champion and status["served"] in (status["served_models"] or ())

        await eventually(has_it, "the learner is told the name at the first server")


@asynccontextmanager
async def forgetful(url: str) -> AsyncIterator[tuple[str, set[str]]]:
    """A double, for a fault that no server shows on demand: before `url`, it answers as the base for names in a set."""
    app, forgotten = FastAPI(), set[str]()
    async with httpx.AsyncClient(base_url=url, timeout=60) as behind:

        @app.api_route("/{path:path}", methods=["GET", "POST"])
        async def forward(path: str, request: Request) -> Response:
            body = await request.body()
            if path == "v1/completions" and (asked := json.loads(body))["model"] in forgotten:
                body = json.dumps(asked | {"model": "base"}).encode()
            given = {"content-type": "application/json"} if body else {}
            answer = await behind.request(request.method, f"/{path}", content=body, headers=given)
            return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))

        with served(app, lifespan="off") as address:
            yield address, forgotten


@pytest.mark.slow
async def test_a_silent_no_op_is_found_later_and_its_server_takes_no_requests_until_it_is_cured(
    engines: tuple[Engine, Engine], registry: Registry, make_adapter: MakeAdapter
) -> None:
    async with (
        forgetful(engines[1].url) as (address, forgotten),
        gateway(registry, engines[0].url, address, promotion=OFTEN) as client,
    ):
        champion = (await change(client, "/promote", digest=make_adapter(1)))["to_name"]
        forgotten.add(champion)

        async def is_refuted() -> bool:
            return bool((await replicas(client))[1]["refuted"])

        await eventually(is_refuted)
        assert (
            f'ratchet_attestations_total{{result="refuted",url="{address}"}} 1.0' in (await client.get("/metrics")).text
        )

        async def is_cured() -> bool:
            replica = (await replicas(client))[1]
            return not replica["reason"] and champion not in replica["models"]

        await eventually(is_cured, "it has the adapter again, under a name that it never had")
        assert (await client.get("/status")).json()["served"] == champion


@pytest.mark.nightly
async def test_an_adapter_that_one_server_serves_wrongly_is_promoted_on_the_others(
    engines: tuple[Engine, Engine], registry: Registry, make_adapter: MakeAdapter
) -> None:
    async with forgetful(engines[1].url) as (address, forgotten), gateway(registry, engines[0].url, address) as client:
        digest = make_adapter(1)
        home = instance_of(registry.home)
        forgotten.update(f"ratchet-{number}-{home}-{digest[:12]}" for number in range(1, 20))
        champion = (await change(client, "/promote", digest=digest))["to_name"]
        assert champion in forgotten
        good, bad = await replicas(client)
        assert (good["reason"], champion in good["models"], champion in bad["models"]) == ("", True, False)
        assert re.search("no-op|not the adapter", bad["reason"])
        async with asking(client) as answered:
            await answered.more(20)
        assert (answered.failures, set(answered.texts)) == ([], {champion})


@pytest.mark.nightly
async def test_a_hung_server_gets_no_more_requests(engines: tuple[Engine, Engine], registry: Registry) -> None:
    async with gateway(registry, *(engine.url for engine in engines)) as client:
        engines[1].signal(signal.SIGSTOP)
        try:

            async def is_out() -> bool:
                return bool((await replicas(client))[1]["reason"])

            await eventually(is_out, within_s=60)
            async with asking(client) as answered:
                await answered.more(10)
            assert answered.failures == []
        finally:
            engines[1].signal(signal.SIGCONT)
