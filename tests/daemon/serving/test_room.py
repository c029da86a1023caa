"""The places for adapters that groups share: none is taken from a champion that answers, and none is given twice."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.serving.alias import Alias
from daemon.serving.promotion import Promoter, PromotionSettings
from daemon.serving.replicas import Replicas
from daemon.serving.room import Room
from streams.errors import PromotionError
from streams.policy.client import PolicyClient
from streams.trust.groups import AdapterGroup, AdapterSettings, home_of
from tests.daemon.serving.test_promotion import loaded
from tests.waiting import eventually

MakeAdapter = Callable[..., str]
pytestmark = pytest.mark.usefixtures("emptied")

NAMES = ("one", "two", "three")
SETTINGS = AdapterSettings(groups={name: AdapterGroup(agents=(name,)) for name in NAMES}, max_loras=4, wait_s=0.5)


class Groups:
    """A promoter for each group, over one server with room for two champions."""

    def __init__(self, home: Registry, policy: PolicyClient, make_adapter: MakeAdapter) -> None:
        replicas = Replicas([policy])
        self.room = Room(replicas, SETTINGS)
        self.registries = {name: Registry(home_of(home.home, name)) for name in NAMES}
        self.aliases = {name: Alias(f"assistant-{name}") for name in NAMES}
        self.promoters = {
            name: Promoter(
                self.registries[name],
                replicas,
                self.aliases[name],
                PromotionSettings(drain_timeout_s=5),
                room=self.room,
            )
            for name in NAMES
        }
        self.digests = {
            name: make_adapter(seed, within=self.registries[name]) for seed, name in enumerate(NAMES, start=1)
        }

    async def promote(self, name: str) -> None:
        await self.promoters[name].promote(self.digests[name], "anna", "better")

    def cold(self) -> list[str]:
        return [name for name in NAMES if self.aliases[name].is_cold]


@pytest.fixture
async def groups(registry: Registry, policy: PolicyClient, make_adapter: MakeAdapter) -> AsyncIterator[Groups]:
    found = Groups(registry, policy, make_adapter)
    for name in NAMES:
        await found.promoters[name].reconcile()
    await found.promote("one")
    await found.promote("two")
    yield found
    for alias in found.aliases.values():
        if alias.served not in (None, "base"):
            await policy.unload_adapter(alias.served or "")


async def test_a_champion_that_answers_keeps_its_place_and_another_gives_up_its_own(
    groups: Groups, policy: PolicyClient
) -> None:
    served = groups.aliases["one"].served
    assert served is not None
    groups.aliases["one"].begin(served)
    await groups.promote("three")
    assert groups.cold() == ["two"]
    assert served in await loaded(policy)


async def test_where_all_champions_answer_a_load_waits_and_is_refused_with_the_setting_to_raise(
    groups: Groups, policy: PolicyClient
) -> None:
    names = {name: groups.aliases[name].served or "" for name in ("one", "two")}
    for name, served in names.items():
        groups.aliases[name].begin(served)
    with pytest.raises(PromotionError, match=r"all 4 places .*raise adapters\.max_loras"):
        await groups.promote("three")
    assert groups.cold() == []
    assert {*names.values()} <= await loaded(policy)
    groups.aliases["two"].end(names["two"])
    await groups.promote("three")
    assert groups.cold() == ["two"]


async def test_a_champion_that_a_candidate_is_judged_against_stays_loaded(
    groups: Groups, make_adapter: MakeAdapter
) -> None:
    registry = groups.registries["one"]
    candidate = make_adapter(7, approved=False, within=registry)
    for state in (State.TRAINED, State.EVALUATING):
        registry.enter(candidate, state, "learner", "a test")
    await groups.promote("three")
    assert groups.cold() == ["two"]


async def test_a_cold_champion_stays_so_until_it_is_asked_for_and_a_rollback_of_its_group_needs_no_other(
    groups: Groups, policy: PolicyClient
) -> None:
    await groups.promote("three")
    assert groups.cold() == ["one"]
    for promoter in groups.promoters.values():
        await promoter.reconcile()
    assert groups.cold() == ["one"]
    await groups.promoters["one"].warm()
    assert groups.cold() == ["two"]
    await groups.promoters["two"].roll_back(None, "anna", "complaints")
    assert groups.aliases["two"].served == "base"
    assert groups.aliases["one"].adapter == groups.digests["one"]


async def test_loads_of_two_groups_at_once_take_two_places(groups: Groups, policy: PolicyClient) -> None:
    given = frozenset[str]().union(*(registry.names_given_by("serve") for registry in groups.registries.values()))
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            names = frozenset[str]().union(*(each.names_given_by("serve") for each in groups.registries.values()))
            most = max(most, len(await loaded(policy) & names))
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    await eventually(lambda: most > 0, "what is loaded is seen")
    await groups.promote("three")
    await asyncio.gather(groups.promoters["one"].warm(), groups.promoters["two"].warm(), return_exceptions=True)
    watching.cancel()
    assert most == 2
    assert given < frozenset[str]().union(*(each.names_given_by("serve") for each in groups.registries.values()))
