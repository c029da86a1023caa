"""A principal revokes consent, or an episode loses trust: which adapters are marked, and where training continues."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from daemon.console import status_table
from daemon.learning.forgetting import exposed_adapters, mark_exposed, unmarked_ancestor
from daemon.registry.audit import Action
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE, StatusReport
from learners.adapters import AdapterStore
from learners.provenance import Provenance
from learners.snapshots import build_snapshot
from ratchet_client.events import OutcomeEvent, RetractionEvent
from ratchet_client.messages import user
from streams.store.client import StoreClient
from streams.trust.holdout import Split
from streams.trust.rules import withdrawal_id
from tests.builders.episodes import HOLDOUT, TASKS, episode
from tests.builders.stored import Log, ServedStore
from tests.builders.trained import entered

ACTOR = "ann"


@dataclass
class Scene:
    """A store that grows, and adapters that are trained on it, one on from the other."""

    home: Path
    client: StoreClient
    log: Log
    registry: Registry
    champion: str = BASE

    def plays(self, principal: str) -> None:
        """An episode like no other; its name and its principal's are the same."""
        self.log.publish(*episode(principal, TASKS[Split.TRAIN][0], action=f"go {principal}"))

    def revokes(self, principal: str) -> RetractionEvent:
        event = RetractionEvent(principal=principal, reason="asked")
        self.log.publish(event)
        return event

    def fails(self, episode_id: str) -> None:
        """A later outcome of the episode says that it failed."""
        self.log.publish(OutcomeEvent(episode_id=episode_id, verifier="late", success=False, score=0.0))

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
        await mark_exposed(self.client, self.registry, self.provenance, ACTOR)
        return {adapter: set(events) for adapter, events in self.registry.marks().items()}


@pytest.fixture
async def scene(served_store: ServedStore, registry: Registry) -> AsyncIterator[Scene]:
    async with StoreClient(served_store.url) as client:
        yield Scene(registry.home, client, Log(served_store.store), registry)


async def test_adapters_trained_on_data_of_a_revoked_principal_are_marked_and_others_are_not(scene: Scene) -> None:
    scene.plays("stays")
    before = await scene.trains()
    scene.plays("leaves")
    saw = await scene.trains(before)
    child = await scene.trains(saw)
    retraction = scene.revokes("leaves")
    assert await scene.marks() == {saw: {retraction.event_id}, child: {retraction.event_id}}
    after = await scene.trains(before)
    assert after not in await scene.marks()


async def test_a_child_of_a_marked_adapter_is_marked_even_if_its_own_snapshot_is_clean(scene: Scene) -> None:
    scene.plays("stays")
    scene.plays("leaves")
    saw = await scene.trains()
    scene.revokes("leaves")
    child = await scene.trains(saw)
    assert set(await scene.marks()) == {saw, child}
    (one,) = (one for one in exposed_adapters(scene.registry, scene.provenance, "leaves") if one.adapter == child)
    assert (one.seen_by, one.trajectories, one.state) == (saw, 1, State.APPROVED)


async def test_an_adapter_is_marked_once_however_often_the_principal_revokes_consent(scene: Scene) -> None:
    scene.plays("leaves")
    await scene.trains()
    first = scene.revokes("leaves")
    await scene.marks()
    entries = scene.registry.audit.read()
    scene.revokes("leaves")
    assert [*(await scene.marks()).values()] == [{first.event_id}]
    assert scene.registry.audit.read() == entries
    assert scene.registry.audit.verify() == len(entries)


async def test_the_audit_log_says_why_and_never_names_the_principal(scene: Scene) -> None:
    scene.plays("secret-principal")
    adapter = await scene.trains()
    retraction = scene.revokes("secret-principal")
    await scene.marks()
    mark = scene.registry.audit.read()[-1]
    assert (mark.actor, mark.action, mark.subject) == (ACTOR, Action.RETRAIN, adapter)
    assert retraction.event_id in mark.reason
    assert "secret-principal" not in scene.registry.audit.path.read_text()


async def test_a_marked_adapter_goes_on_serving_in_the_same_state(scene: Scene) -> None:
    scene.plays("leaves")
    champion = await scene.trains()
    scene.registry.promote(champion, "learner", "it won")
    scene.revokes("leaves")
    await scene.marks()
    assert scene.registry.refs().champion == champion
    assert scene.registry.state(champion) is State.SERVING
    (one,) = exposed_adapters(scene.registry, scene.provenance, "leaves")
    assert one.serves


async def test_the_next_cycle_continues_from_the_nearest_ancestor_without_revoked_data(scene: Scene) -> None:
    scene.plays("a")
    first = await scene.trains()
    scene.plays("b")
    second = await scene.trains(first)
    scene.plays("c")
    third = await scene.trains(second)

    def parent() -> str:
        return unmarked_ancestor(scene.registry, scene.provenance, third)

    assert parent() == third
    scene.revokes("c")
    await scene.marks()
    assert parent() == second
    scene.revokes("b")
    await scene.marks()
    assert parent() == first
    scene.revokes("a")
    await scene.marks()
    assert parent() == BASE
    assert unmarked_ancestor(scene.registry, scene.provenance, BASE) == BASE


async def test_adapters_that_saw_an_episode_that_lost_trust_are_marked_with_their_children(scene: Scene) -> None:
    scene.plays("stays")
    before = await scene.trains()
    scene.plays("fails")
    saw = await scene.trains(before)
    scene.fails("fails")
    child = await scene.trains(saw)
    withdrawal = withdrawal_id("fails")
    assert await scene.marks() == {saw: {withdrawal}, child: {withdrawal}}
    entries = scene.registry.audit.read()
    assert [entry.reason for entry in entries if entry.subject == saw][-1] == (
        f"it saw an episode that has lost trust, by {withdrawal}"
    )
    assert unmarked_ancestor(scene.registry, scene.provenance, child) == before
    assert "'fails'" not in scene.registry.audit.path.read_text()
    await scene.marks()
    assert scene.registry.audit.read() == entries


async def test_an_adapter_that_saw_a_recovery_of_an_episode_that_lost_trust_is_marked(scene: Scene) -> None:
    task_id = TASKS[Split.TRAIN][0]
    first, *rest = episode("lost", task_id, "policy", success=False)
    scene.log.publish(first, *rest)
    scene.log.recovered("lost", task_id, left_at=1)
    adapter = await scene.trains()
    assert await scene.marks() == {}
    scene.log.publish(first.model_copy(update={"event_id": "other", "observation": (user("Nothing."),)}))
    assert await scene.marks() == {adapter: {withdrawal_id("lost")}}


async def test_an_adapter_of_a_lost_snapshot_is_marked_for_the_first_episode_that_lost_trust_only(
    scene: Scene,
) -> None:
    for name in ("one", "two"):
        scene.plays(name)
    adapter = await scene.trains()
    shutil.rmtree(scene.home / "snapshots")
    for name in ("one", "two"):
        scene.fails(name)
    assert await scene.marks() == {adapter: {withdrawal_id("one")}}


async def test_without_revoked_consent_nothing_is_written(scene: Scene) -> None:
    scene.plays("stays")
    await scene.trains()
    entries = scene.registry.audit.read()
    assert await scene.marks() == {}
    assert scene.registry.audit.read() == entries


async def test_the_status_lists_the_adapters_to_be_retrained(scene: Scene) -> None:
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
