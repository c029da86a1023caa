"""When the learner runs a cycle, and what it tidies up before the first."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
import structlog

from daemon.learning.cycle import train_candidate
from daemon.learning.loop import ACTOR, Loop
from daemon.learning.resumptions import resumptions_path
from daemon.learning.role import Learner, take_turns
from daemon.learning.trials import planted_canaries
from daemon.registry.learner_status import LearnerPhase
from daemon.registry.lifecycle import State
from learners.canaries import draw_canaries
from learners.settings import LearnerSettings, LoraSettings, Stage
from learners.snapshots import build_snapshot, write_snapshot
from ratchet_client.events import OutcomeEvent, RetractionEvent
from streams.errors import ControlError, StoreError
from streams.policy.client import PolicyClient
from streams.trust.holdout import Split
from tests.builders.episodes import HOLDOUT, TASKS, episode
from tests.builders.stored import Log, ServedStore
from tests.builders.trained import entered, trajectory
from tests.waiting import eventually

NEEDED = 2


async def test_a_cycle_is_due_when_enough_train_episodes_are_new_and_every_state_was_branched(
    loop: Loop, served_store: ServedStore
) -> None:
    learner, log, tasks = Learner(loop), Log(served_store.store), TASKS[Split.TRAIN]
    for number, held_out in enumerate(TASKS[Split.SELECTION][:NEEDED]):
        log.publish(*episode(f"held-out-{number}", held_out))
    log.publish(*episode("0", tasks[0]))
    with structlog.testing.capture_logs() as said:
        for _ in range(2):
            assert not await learner.is_due()
    # Once, since nothing changed.
    assert [(each["new"], each["needed"]) for each in said] == [(1, NEEDED)]
    log.publish(*episode("1", tasks[1]))
    for name in ("0", "1"):
        for step in (0, 1):
            assert not await learner.is_due()
            log.branched(name, tasks[int(name)], step)
    assert await learner.is_due()
    entered(loop.settings.home, await build_snapshot(loop.store, HOLDOUT, loop.settings.home / "snapshots"))
    assert not await learner.is_due()


async def test_the_learner_waits_only_so_long_for_states_that_nobody_branches(
    loop: Loop, served_store: ServedStore
) -> None:
    impatient = loop.settings.learner.model_copy(update={"branch_patience_s": 2.0})
    settings = loop.settings.model_copy(update={"learner": impatient})
    learner, log = Learner(replace(loop, settings=settings)), Log(served_store.store)
    for number in range(NEEDED):
        log.publish(*episode(str(number), TASKS[Split.TRAIN][number]))
    assert not await learner.is_due()
    await eventually(learner.is_due)


async def test_a_candidate_that_a_dead_learner_left_loaded_is_unloaded(
    loop: Loop, policy: PolicyClient, make_adapter: Callable[..., str]
) -> None:
    left, other = make_adapter(1), make_adapter(2)
    names = [loop.registry.name(left, ACTOR, "to be evaluated"), loop.registry.name(other, "operator", "to serve")]
    for name, digest in zip(names, (left, other), strict=True):
        await policy.load_adapter(name, str(loop.adapters.folder(digest)))
    learning = asyncio.create_task(take_turns((Learner(loop),)))

    async def is_unloaded() -> bool:
        return names[0] not in {model.name for model in await policy.models()}

    await eventually(is_unloaded)
    learning.cancel()
    await asyncio.gather(learning, return_exceptions=True)
    assert names[1] in {model.name for model in await policy.models()}
    await policy.unload_adapter(names[1])


async def test_a_trial_that_cannot_be_finished_is_resumed_so_often_and_then_left(
    loop: Loop, make_adapter: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate, learner = make_adapter(3, approved=False), Learner(loop)
    assert not await learner.resume()
    loop.registry.enter(candidate, State.TRAINED, ACTOR, "a test")
    with pytest.raises(ControlError):
        await learner.resume()
    assert loop.registry.state(candidate) is State.EVALUATING
    assert await learner.resume(), "no cycle begins while one is to be finished"
    monkeypatch.setattr("daemon.learning.role._POLL_S", 0.0)
    errors = 1
    for _ in range(20):
        # Each time by another learner: one that dies in the trial and is started again counts on.
        try:
            if not await Learner(loop).resume():
                break
        except ControlError:
            errors += 1
    assert errors == 8
    assert not await Learner(loop).resume()
    resumptions_path(loop.registry, candidate).unlink()
    with pytest.raises(ControlError):
        await Learner(loop).resume()


@pytest.mark.parametrize(
    "event",
    [
        RetractionEvent(principal="leaves", reason="asked"),
        OutcomeEvent(episode_id="leaves", verifier="late", success=False, score=0.0),
    ],
    ids=["consent", "trust"],
)
async def test_a_champion_with_revoked_data_makes_one_cycle_due(
    event: RetractionEvent | OutcomeEvent, loop: Loop, served_store: ServedStore
) -> None:
    learner, log, tasks = Learner(loop), Log(served_store.store), TASKS[Split.TRAIN]
    snapshots = loop.settings.home / "snapshots"
    for number, name in enumerate(("stays", "leaves")):
        log.publish(*episode(name, tasks[number]))
        for step in (0, 1):
            log.branched(name, tasks[number], step)
    champion = entered(loop.settings.home, await build_snapshot(loop.store, HOLDOUT, snapshots))
    for state in (State.TRAINED, State.EVALUATING, State.APPROVED):
        loop.registry.enter(champion, state, ACTOR, "a test")
    loop.registry.promote(champion, ACTOR, "it won")
    assert not await learner.is_due()
    log.publish(event)
    await learner.mark_exposed()
    assert set(loop.registry.marks()) == {champion}
    assert await learner.is_due()
    snapshot = await build_snapshot(loop.store, HOLDOUT, snapshots)
    assert await learner.is_due(), "nothing was trained on it yet"
    entered(loop.settings.home, snapshot)
    assert not await learner.is_due()


async def test_no_cycle_is_due_when_every_principal_has_revoked_consent(loop: Loop, served_store: ServedStore) -> None:
    learner, log = Learner(loop), Log(served_store.store)
    for number in range(NEEDED):
        log.publish(*episode(str(number), TASKS[Split.TRAIN][number]))
        for step in (0, 1):
            log.branched(str(number), TASKS[Split.TRAIN][number], step)
    assert await learner.is_due()
    log.publish(*(RetractionEvent(principal=str(number), reason="asked") for number in range(NEEDED)))
    assert not await learner.is_due()


@pytest.mark.slow
async def test_training_does_not_continue_from_a_champion_with_revoked_data(
    loop: Loop, served_store: ServedStore
) -> None:
    log, tasks = Log(served_store.store), TASKS[Split.TRAIN]
    log.publish(*episode("stays", tasks[0]), *episode("leaves", tasks[1]))
    champion = entered(loop.settings.home, await build_snapshot(loop.store, HOLDOUT, loop.settings.home / "snapshots"))
    for state in (State.TRAINED, State.EVALUATING, State.APPROVED):
        loop.registry.enter(champion, state, ACTOR, "a test")
    loop.registry.promote(champion, ACTOR, "it won")
    log.publish(RetractionEvent(principal="leaves", reason="asked"))
    snapshot = await build_snapshot(loop.store, HOLDOUT, loop.settings.home / "snapshots")
    quick = LearnerSettings(
        stages=(Stage(objective="imitation", updates=1),), lora=LoraSettings(rank=2, alpha=4), threads=1
    )
    candidate = await train_candidate(loop, quick, snapshot, lambda *_: None)
    assert set(loop.registry.marks()) == {champion}
    assert loop.adapters.manifest(candidate).parent is None
    assert [one.adapter for one in loop.provenance().lineage(candidate)] == [candidate]
    assert loop.provenance().exposed("leaves")[0].adapter == champion


async def test_a_trial_asks_for_the_canaries_of_all_ancestors_each_once(loop: Loop) -> None:
    home, first, both = loop.settings.home, draw_canaries(1, 0, HOLDOUT), draw_canaries(2, 0, HOLDOUT)
    mine = trajectory(0, TASKS[Split.TRAIN][0])
    parent = entered(home, write_snapshot([mine], HOLDOUT, home / "snapshots", 7, {}, canaries=first))
    child = entered(home, write_snapshot([mine], HOLDOUT, home / "snapshots", 8, {}), parent)
    again = entered(home, write_snapshot([mine], HOLDOUT, home / "snapshots", 9, {}, canaries=both), child)
    assert planted_canaries(loop, parent) == first
    assert planted_canaries(loop, child) == first
    assert set(planted_canaries(loop, again)) == set(both)
    assert len(planted_canaries(loop, again)) == 2


@pytest.mark.nightly
async def test_without_a_sandbox_a_candidate_is_trained_without_a_world_model(
    loop: Loop, served_store: ServedStore
) -> None:
    Log(served_store.store).publish(*episode("0", TASKS[Split.TRAIN][0]))
    snapshot = await build_snapshot(loop.store, HOLDOUT, loop.settings.home / "snapshots")
    quick = LearnerSettings(
        stages=(Stage(objective="world_model", updates=1), Stage(objective="imitation", updates=1)),
        lora=LoraSettings(rank=2, alpha=4),
        threads=1,
    )
    candidate = await train_candidate(loop, quick, snapshot, lambda *_: None)
    assert [stage.objective for stage in loop.adapters.manifest(candidate).settings.stages] == ["imitation"]


async def test_an_error_that_comes_again_is_logged_once(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Learner(loop)
    said = iter(["the store is away", "the store is away", "the disk is full"])

    async def fail() -> None:
        raise StoreError(next(said))

    async def never() -> bool:
        return False

    monkeypatch.setattr(learner, "mark_exposed", fail)
    with structlog.testing.capture_logs() as entries:
        for _ in range(3):
            await learner.turn(never)
    assert [entry["error"] for entry in entries] == ["the store is away", "the disk is full"]
    assert learner.status.phase is LearnerPhase.PAUSED
