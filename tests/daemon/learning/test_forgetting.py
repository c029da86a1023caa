"""A principal withdraws: which adapters are marked, and from what the next cycle trains on."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from daemon.console import status_table
from daemon.learning.forgetting import exposed_adapters, mark_withdrawn, unmarked_ancestor
from daemon.registry.audit import Action
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE, StatusReport
from learners.adapters import AdapterStore
from learners.provenance import Provenance
from learners.snapshots import build_snapshot
from streams.events import RetractionEvent
from streams.store.client import StoreClient
from streams.trust.holdout import Split
from tests.builders.episodes import HOLDOUT, TASKS, episode
from tests.builders.stored import Log, ServedStore
from tests.builders.trained import entered

ACTOR = "ann"


@dataclass
class House:
    """A store that grows, and adapters that are trained on it, one on from the other."""

    home: Path
    client: StoreClient
    log: Log
    registry: Registry
    champion: str = BASE

    def plays(self, principal: str) -> None:
        """An episode like no other; its name and its principal's are the same."""
        self.log.publish(*episode(principal, TASKS[Split.TRAIN][0], action=f"go {principal}"))

    def withdraws(self, principal: str) -> RetractionEvent:
        event = RetractionEvent(principal=principal, reason="asked")
        self.log.publish(event)
        return event

    async def trains(self, parent: str | None = None) -> str:
        snapshot = await build_snapshot(self.client, HOLDOUT, self.home / "snapshots")
        adapter = entered(self.home, snapshot, parent)
        for state in (State.TRAINED, State.EVALUATING, State.APPROVED):
            self.registry.enter(adapter, state, "learner", "a test")
        return adapter

    @property
    def provenance(self) -> Provenance:
        return Provenance(AdapterStore(self.home / "adapters"), self.home / "snapshots")

    async def marks(self) -> dict[str, set[str]]:
        """What is marked now that the store was looked at: adapters with the retractions."""
        await mark_withdrawn(self.client, self.registry, self.provenance, ACTOR)
        return {adapter: set(events) for adapter, events in self.registry.marks().items()}


@pytest.fixture
async def house(served_store: ServedStore, registry: Registry) -> AsyncIterator[House]:
    async with StoreClient(served_store.url) as client:
        yield House(registry.home, client, Log(served_store.store), registry)


async def test_adapters_trained_on_data_of_a_revoked_principal_are_marked_and_others_are_not(house: House) -> None:
    house.plays("stays")
    before = await house.trains()
    house.plays("leaves")
    saw = await house.trains(before)
    child = await house.trains(saw)
    retraction = house.withdraws("leaves")
    assert await house.marks() == {saw: {retraction.event_id}, child: {retraction.event_id}}
    after = await house.trains(before)
    assert after not in await house.marks()


async def test_a_child_of_a_marked_adapter_is_marked_even_if_its_own_snapshot_is_clean(house: House) -> None:
    house.plays("stays")
    house.plays("leaves")
    saw = await house.trains()
    house.withdraws("leaves")
    child = await house.trains(saw)
    assert set(await house.marks()) == {saw, child}
    (one,) = (one for one in exposed_adapters(house.registry, house.provenance, "leaves") if one.adapter == child)
    assert (one.seen_by, one.trajectories, one.state) == (saw, 1, State.APPROVED)


async def test_an_adapter_is_marked_once_however_often_the_principal_revokes_consent(house: House) -> None:
    house.plays("leaves")
    await house.trains()
    first = house.withdraws("leaves")
    await house.marks()
    entries = house.registry.audit.read()
    house.withdraws("leaves")
    assert [*(await house.marks()).values()] == [{first.event_id}]
    assert house.registry.audit.read() == entries
    assert house.registry.audit.verify() == len(entries)


async def test_the_audit_log_says_why_and_never_names_the_principal(house: House) -> None:
    house.plays("secret-principal")
    adapter = await house.trains()
    retraction = house.withdraws("secret-principal")
    await house.marks()
    mark = house.registry.audit.read()[-1]
    assert (mark.actor, mark.action, mark.subject) == (ACTOR, Action.RETRAIN, adapter)
    assert retraction.event_id in mark.reason
    assert "secret-principal" not in house.registry.audit.path.read_text()


async def test_a_marked_adapter_goes_on_serving_in_the_same_state(house: House) -> None:
    house.plays("leaves")
    champion = await house.trains()
    house.registry.promote(champion, "learner", "it won")
    house.withdraws("leaves")
    await house.marks()
    assert house.registry.refs().champion == champion
    assert house.registry.state(champion) is State.SERVING
    (one,) = exposed_adapters(house.registry, house.provenance, "leaves")
    assert one.serves


async def test_the_next_cycle_continues_from_the_nearest_ancestor_without_revoked_data(house: House) -> None:
    house.plays("a")
    first = await house.trains()
    house.plays("b")
    second = await house.trains(first)
    house.plays("c")
    third = await house.trains(second)

    def parent() -> str:
        return unmarked_ancestor(house.registry, house.provenance, third)

    assert parent() == third
    house.withdraws("c")
    await house.marks()
    assert parent() == second
    house.withdraws("b")
    await house.marks()
    assert parent() == first
    house.withdraws("a")
    await house.marks()
    assert parent() == BASE
    assert unmarked_ancestor(house.registry, house.provenance, BASE) == BASE


async def test_without_revoked_consent_nothing_is_written(house: House) -> None:
    house.plays("stays")
    await house.trains()
    entries = house.registry.audit.read()
    assert await house.marks() == {}
    assert house.registry.audit.read() == entries


async def test_the_status_lists_the_adapters_to_be_retrained(house: House) -> None:
    report = StatusReport(
        alias="assistant",
        champion="a" * 64,
        previous=BASE,
        anchor=BASE,
        served="base",
        in_flight=0,
        served_models=None,
        store=None,
        cycles=(),
        retrain=("a" * 64, "b" * 64),
    )
    cells = [str(cell) for column in status_table(report).columns for cell in column.cells]
    assert "to be retrained" in cells
    assert any(cell.startswith("the champion and 1 other") for cell in cells)
