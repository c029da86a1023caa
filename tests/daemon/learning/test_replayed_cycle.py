"""A cycle's snapshot marks what the champion has learned from, replays it, and forgets what is to be forgotten."""

from pathlib import Path

import pytest

from daemon.learning.cycle import new_snapshot, stopped_in_training
from daemon.learning.forgetting import mark_exposed
from daemon.learning.loop import ACTOR, Loop
from daemon.registry.lifecycle import State
from learners.settings import LearnerSettings, ReplaySettings
from learners.snapshots import Snapshot, read_trajectories
from learners.trajectories import BASE_SAMPLE
from ratchet_client.events import OutcomeEvent, RetractionEvent
from streams.trust.holdout import Split
from tests.builders.episodes import TASKS, episode
from tests.builders.stored import Log, ServedStore
from tests.builders.trained import entered

REPLAYING = LearnerSettings(replay=ReplaySettings(enabled=True), most_per_principal=1)


@pytest.fixture
def log(served_store: ServedStore) -> Log:
    return Log(served_store.store)


def plays(log: Log, name: str, number: int, principal: str = "one") -> None:
    events = episode(name, TASKS[Split.TRAIN][number], "policy")
    log.publish(*(event.model_copy(update={"principal": principal}) for event in events))


def promoted(loop: Loop, snapshot: Snapshot, parent: str | None = None) -> str:
    """An adapter that was trained on `snapshot` and serves."""
    adapter = entered(loop.settings.home, snapshot, parent)
    for state in (State.TRAINED, State.EVALUATING, State.APPROVED):
        loop.registry.enter(adapter, state, ACTOR, "a test")
    loop.registry.promote(adapter, ACTOR, "it won")
    return adapter


def found(snapshot: Snapshot) -> dict[str, bool]:
    return {one.episode_id: one.older for one in read_trajectories(snapshot.folder)}


async def test_what_any_ancestor_learned_from_is_replayed_and_named_by_the_provenance(loop: Loop, log: Log) -> None:
    plays(log, "first", 0)
    grandparent = promoted(loop, await new_snapshot(loop, REPLAYING))
    plays(log, "second", 1)
    second = await new_snapshot(loop, REPLAYING)
    assert found(second) == {"first": True, "second": False}
    parent = promoted(loop, second, grandparent)
    plays(log, "third", 2)
    third = await new_snapshot(loop, REPLAYING)
    assert found(third) == {"first": True, "second": True, "third": False}
    child = entered(loop.settings.home, third, parent)
    assert loop.provenance().lineage(child)[0].episodes == frozenset({"first", "second", "third"})
    without = await new_snapshot(loop, REPLAYING.model_copy(update={"replay": ReplaySettings()}))
    assert found(without) == {"third": False}


@pytest.mark.parametrize("lost", ["consent", "trust"])
async def test_an_adapter_that_replayed_an_episode_is_marked_when_it_is_to_be_forgotten(
    lost: str, loop: Loop, log: Log
) -> None:
    plays(log, "leaves", 0, "leaver")
    plays(log, "stays", 1)
    parent = promoted(loop, await new_snapshot(loop, REPLAYING))
    plays(log, "later", 2, "leaver")
    replaying = await new_snapshot(loop, REPLAYING)
    assert found(replaying) == {"leaves": True, "later": False, "stays": True}
    # Its parent is not said, so that what marks it is what it replayed itself.
    child = entered(loop.settings.home, replaying)
    if lost == "consent":
        log.publish(RetractionEvent(principal="leaver", reason="asked"))
    else:
        log.publish(OutcomeEvent(episode_id="leaves", verifier="late", success=False, score=0.0))
    await mark_exposed(loop.store, loop.registry, loop.provenance(), ACTOR)
    assert set(loop.registry.marks()) == {parent, child}
    # The champion is not trained on from, so nothing is older; and what is to be forgotten does not come back.
    kept = {"stays": False} if lost == "consent" else {"stays": False, "later": False}
    assert found(await new_snapshot(loop, REPLAYING)) == kept


async def test_answers_of_the_base_model_are_written_beside_the_episodes(loop: Loop, log: Log, tmp_path: Path) -> None:
    plays(log, "first", 0)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Name a river.\n")
    replay = ReplaySettings(enabled=True, base_prompts=prompts)
    snapshot = await new_snapshot(loop, REPLAYING.model_copy(update={"replay": replay}))
    (kept,) = (loop.settings.home / "base_samples").iterdir()
    assert "Name a river." in kept.read_text()
    written = kept.read_bytes()
    again = await new_snapshot(loop, REPLAYING.model_copy(update={"replay": replay}))
    assert (again.manifest, kept.read_bytes()) == (snapshot.manifest, written)
    kinds = {one.actor_kind for one in read_trajectories(snapshot.folder)}
    assert kinds <= {"policy", BASE_SAMPLE}
    assert await stopped_in_training(loop, REPLAYING) is None
