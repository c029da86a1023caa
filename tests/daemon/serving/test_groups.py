"""Groups of agents and tenants: each is answered by its own adapter alone, and few adapters are loaded at once."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from daemon.registry.registry import Registry
from daemon.registry.schemas import StatusReport
from daemon.serving.passing import ADAPTER
from streams.policy.client import PolicyClient
from streams.trust.groups import AdapterGroup, AdapterSettings, home_of
from tests.daemon.conftest import serve_role
from tests.waiting import eventually

MakeAdapter = Callable[..., str]
pytestmark = pytest.mark.usefixtures("emptied")

NAMES = ("one", "two", "three")
CHAT = {"messages": [{"role": "user", "content": "Hi."}], "max_tokens": 2}


def settings(*names: str, max_loras: int = 6, wait_s: float = 30.0) -> AdapterSettings:
    """A group for each agent of these names."""
    groups = {name: AdapterGroup(agents=(name,)) for name in names}
    return AdapterSettings(groups=groups, max_loras=max_loras, wait_s=wait_s)


@pytest.fixture
def trained(registry: Registry, make_adapter: MakeAdapter) -> Callable[[str, int], str]:
    """Makes an approved adapter in the home of a group."""
    return lambda group, seed: make_adapter(seed, within=of(registry, group))


def of(registry: Registry, group: str) -> Registry:
    return Registry(home_of(registry.home, group))


async def ask(client: httpx.AsyncClient, agent: str = "", model: str = "assistant", **headers: str) -> httpx.Response:
    named = {"x-ratchet-agent": agent} if agent else {}
    return await client.post("/v1/chat/completions", json=CHAT | {"model": model}, headers=named | headers)


async def answered_by(client: httpx.AsyncClient, agent: str = "", **headers: str) -> str:
    """The name of the adapter that answered a call of `agent`."""
    answer = await ask(client, agent, **headers)
    assert answer.is_success, answer.text
    return answer.headers[ADAPTER.decode()]


async def change(client: httpx.AsyncClient, what: str, group: str, **body: Any) -> None:
    asked = {"reason": "a test", "actor": "anna"} | body
    answer = await client.post(f"/{what}", params={"group": group}, json=asked)
    assert answer.is_success, answer.text


async def status(client: httpx.AsyncClient, group: str = "") -> StatusReport:
    answer = await client.get("/status", params={"group": group})
    assert answer.is_success, answer.text
    return StatusReport.model_validate(answer.json())


async def ours(policy: PolicyClient, registry: Registry) -> set[str]:
    """The names of this home's adapters that are loaded."""
    homes = [registry, *(of(registry, name) for name in NAMES)]
    given = frozenset[str]().union(*(each.names_given_by("serve") for each in homes))
    return {model.name for model in await policy.models()} & given


@pytest.mark.slow
async def test_each_group_is_answered_by_its_own_adapter_also_after_a_rollback_of_one(
    inference_url: str, registry: Registry, trained: Callable[[str, int], str]
) -> None:
    one, two = trained("one", 1), trained("two", 2)
    async with serve_role(registry, inference_url, adapters=settings("one", "two")) as client:
        await change(client, "promote", "one", digest=one)
        await change(client, "promote", "two", digest=two)
        assert (await answered_by(client, "one")).endswith(one[:12])
        assert (await answered_by(client, "two")).endswith(two[:12])
        assert await answered_by(client) == await answered_by(client, "a stranger") == "base"
        assert (await answered_by(client, "two", **{"x-ratchet-capture": "off"})).endswith(two[:12])
        await change(client, "rollback", "one")
        assert await answered_by(client, "one") == "base"
        assert (await answered_by(client, "two")).endswith(two[:12])
        told = await status(client)
        assert [(each.name, each.alias, each.champion) for each in told.groups] == [
            ("", "assistant", "base"),
            ("one", "assistant-one", "base"),
            ("two", "assistant-two", two),
        ]
        assert (await status(client, "two")).champion == two
        assert of(registry, "two").audit.verify() > 0
        assert registry.audit.read() == []


@pytest.mark.nightly
async def test_the_alias_of_a_group_is_known_to_its_members_alone(
    inference_url: str, registry: Registry, trained: Callable[[str, int], str]
) -> None:
    one = trained("one", 1)
    async with serve_role(registry, inference_url, adapters=settings("one", "two")) as client:
        await change(client, "promote", "one", digest=one)
        answer = await ask(client, "one", "assistant-one")
        assert answer.headers[ADAPTER.decode()].endswith(one[:12])
        for agent in ("two", ""):
            refused = await ask(client, agent, "assistant-one")
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        listed = (await client.get("/v1/models", headers={"x-ratchet-agent": "two"})).json()
        assert [card["id"] for card in listed["data"]] == ["assistant", "assistant-two"]
        assert (await client.get("/status", params={"group": "three"})).status_code == 404


@pytest.mark.slow
async def test_with_tokens_no_call_gets_into_a_group_by_its_own_word(
    inference_url: str, registry: Registry, trained: Callable[[str, int], str]
) -> None:
    one, acme = trained("one", 1), trained("acme", 2)
    adapters = AdapterSettings(
        groups={"one": AdapterGroup(agents=("one",)), "acme": AdapterGroup(agents=("sales",), tenants=("acme",))}
    )
    tokens = {name: f"a token of {name}, for a test" for name in ("one", "acme/anna", "other/ben")}
    async with serve_role(registry, inference_url, adapters=adapters, tokens=tokens) as client:
        await change(client, "promote", "one", digest=one)
        await change(client, "promote", "acme", digest=acme)

        async def by(name: str, **headers: str) -> str:
            return await answered_by(client, authorization=f"Bearer {tokens[name]}", **headers)

        assert (await ask(client, "one")).status_code == 401
        sales, claimed = {"x-ratchet-agent": "sales"}, {"x-ratchet-principal": "acme/anna"}
        assert (await by("one")).endswith(one[:12])
        assert (await by("acme/anna", **sales)).endswith(acme[:12])
        assert await by("acme/anna", **{"x-ratchet-agent": "one"}) == "base"
        assert await by("other/ben", **sales, **claimed) == "base"
        assert await by("other/ben", **{"x-ratchet-agent": "one"}) == "base"


@pytest.mark.slow
async def test_the_least_recently_asked_champion_gives_its_place_to_one_that_is_loaded_on_demand_once(
    inference_url: str, registry: Registry, policy: PolicyClient, trained: Callable[[str, int], str]
) -> None:
    digests = {name: trained(name, seed) for seed, name in enumerate(NAMES)}
    async with serve_role(registry, inference_url, adapters=settings(*NAMES, max_loras=4)) as client:
        for name, digest in digests.items():
            await change(client, "promote", name, digest=digest)
            assert len(await ours(policy, registry)) <= 2

        async def warm() -> set[str]:
            return {each.name for each in (await status(client)).groups if each.name and not each.is_cold}

        assert await warm() == {"two", "three"}
        before = len(of(registry, "one").names_given_by("serve"))
        answers = await asyncio.gather(*(answered_by(client, "one") for _ in range(8)))
        assert len(set(answers)) == 1
        assert answers[0].endswith(digests["one"][:12])
        assert len(of(registry, "one").names_given_by("serve")) == before + 1
        assert await warm() == {"one", "three"}
        await answered_by(client, "three")
        assert (await answered_by(client, "two")).endswith(digests["two"][:12])
        assert await warm() == {"two", "three"}
        assert len(await ours(policy, registry)) == 2
        text = (await client.get("/metrics")).text
        assert 'ratchet_group_loads_total{group="one"} 1.0' in text
        assert 'ratchet_group_loaded{group="one"} 0.0' in text
        assert 'ratchet_group_changes_total{action="promoted",group="two"} 1.0' in text


async def test_a_call_that_no_place_becomes_free_for_is_told_to_try_again_and_nothing_in_use_is_unloaded(
    inference_url: str, registry: Registry, policy: PolicyClient, trained: Callable[[str, int], str]
) -> None:
    digests = {name: trained(name, seed) for seed, name in enumerate(NAMES)}
    asked = CHAT | {"model": "assistant", "max_tokens": 1500, "ignore_eos": True, "stream": True}
    async with serve_role(registry, inference_url, adapters=settings(*NAMES, max_loras=4, wait_s=0.2)) as client:
        for name, digest in digests.items():
            await change(client, "promote", name, digest=digest)
        loaded = await ours(policy, registry)
        async with AsyncExitStack() as answers:
            for name in ("two", "three"):
                headers = {"x-ratchet-agent": name, "x-ratchet-capture": "off"}
                call = client.stream("POST", "/v1/chat/completions", json=asked, headers=headers)
                assert (await answers.enter_async_context(call)).is_success
            refused = await ask(client, "one")
            in_flight = {each.name: each.in_flight for each in (await status(client)).groups}
            assert in_flight == {"": 0, "one": 0, "two": 1, "three": 1}
            assert await ours(policy, registry) == loaded
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
        error = refused.json()["error"]
        assert (error["type"], error["code"], error["param"]) == ("server_error", "service_unavailable", None)
        assert error["message"] == "the adapter of this agent's group was not loaded within 0.2 s; try again soon"
        text = (await client.get("/metrics")).text
        for name, count in {"one": 1.0, "two": 0.0, "three": 0.0}.items():
            assert f'ratchet_group_refused_total{{group="{name}"}} {count}' in text
        assert 'ratchet_gateway_requests_total{status="503"} 1.0' in text

        async def answered() -> bool:
            return (await ask(client, "one")).is_success

        await eventually(answered, "a place is free once the calls are over")


@pytest.mark.nightly
async def test_a_restarted_role_serves_every_group_again(
    inference_url: str, registry: Registry, policy: PolicyClient, trained: Callable[[str, int], str]
) -> None:
    digests = {name: trained(name, seed) for seed, name in enumerate(NAMES)}
    async with serve_role(registry, inference_url, adapters=settings(*NAMES, max_loras=4)) as client:
        for name, digest in digests.items():
            await change(client, "promote", name, digest=digest)
        left = await ours(policy, registry)
    async with serve_role(registry, inference_url, adapters=settings(*NAMES, max_loras=4)) as client:

        async def begun() -> bool:
            return all(each.served is not None or each.is_cold for each in (await status(client)).groups)

        await eventually(begun, "every group serves, or is loaded on demand")
        for name, digest in digests.items():
            assert (await answered_by(client, name)).endswith(digest[:12])
            assert len(await ours(policy, registry)) <= 2
        assert not left & await ours(policy, registry)


def test_a_call_belongs_to_one_group_at_most() -> None:
    with pytest.raises(ValueError, match="could belong to the groups 'a' and 'b'"):
        AdapterSettings(groups={"a": AdapterGroup(agents=("x",)), "b": AdapterGroup(tenants=("t",))})
    AdapterSettings(
        groups={"a": AdapterGroup(agents=("x",), tenants=("t",)), "b": AdapterGroup(agents=("x",), tenants=("u",))}
    )
    with pytest.raises(ValueError, match="neither agents nor tenants"):
        AdapterGroup()
