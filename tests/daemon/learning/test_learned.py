"""Learned from is what an adapter was trained on; a cycle that was stopped before that is begun again."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

from daemon.config import Settings
from daemon.learning.attempts import MOST, Attempts
from daemon.learning.learned import Extent, LearnedFrom, broken_off, enter_unrecorded
from daemon.learning.loop import ACTOR, Loop, Watcher
from daemon.learning.role import Learner, serve, take_turns
from daemon.learning.telling import Telling
from daemon.learning.tellings import Tellings
from daemon.registry.learner_status import LearnerPhase, LearnerStatus, read_learner_status
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.schemas import CycleReport
from learners.adapters import AdapterStore
from learners.settings import LearnerSettings, LoraSettings, Stage
from learners.snapshots import Snapshot, build_snapshot, write_snapshot
from learners.training import remove_leftovers
from ratchet_client.ids import uuid7
from streams.errors import TrainingError
from streams.runtime.json_lines import locked
from streams.trust.groups import DEFAULT_GROUP
from streams.trust.holdout import HoldoutSettings, Split
from tests.builders.episodes import HOLDOUT, TASKS, episode
from tests.builders.stored import Log, ServedStore
from tests.builders.trained import entered, trajectory
from tests.waiting import eventually

EVERYTHING = HoldoutSettings(selection=0, confirmation=0)


def snapshot_of(home: Path, as_of: int, retracted_as_of: int = 0) -> Snapshot:
    return write_snapshot([trajectory(0)], EVERYTHING, home / "snapshots", as_of, {}, retracted_as_of)


@pytest.mark.parametrize("state", [State.REJECTED, State.INCONCLUSIVE, State.HELD])
def test_what_a_rejected_adapter_was_trained_on_is_learned_from_and_a_snapshot_alone_is_not(
    tmp_path: Path, state: State
) -> None:
    learned = LearnedFrom(AdapterStore(tmp_path / "adapters"))
    first, second = snapshot_of(tmp_path, 7, 3), snapshot_of(tmp_path, 9)
    assert learned.extent() == Extent()
    registry, adapter = Registry(tmp_path), entered(tmp_path, first)
    for each in (State.TRAINED, State.EVALUATING, state):
        registry.enter(adapter, each, ACTOR, "a test")
    assert learned.extent() == Extent(7, 3)
    assert broken_off(tmp_path / "snapshots", learned.extent()) == second.manifest
    entered(tmp_path, second)
    assert learned.extent() == Extent(9, 3)
    assert broken_off(tmp_path / "snapshots", learned.extent()) is None


def test_a_damaged_adapter_counts_as_far_as_its_manifest_tells_and_is_named_once(tmp_path: Path) -> None:
    weightless, unreadable = (entered(tmp_path, snapshot_of(tmp_path, sequence)) for sequence in (7, 9))
    adapters = tmp_path / "adapters"
    (adapters / weightless / "adapter_model.safetensors").unlink()
    (adapters / unreadable / "manifest.json").write_text("{")
    (adapters / ("0" * 64)).mkdir()
    learned = LearnedFrom(AdapterStore(adapters))
    with structlog.testing.capture_logs() as said:
        assert [learned.extent() for _ in range(2)] == [Extent(7, 0)] * 2
    assert sorted(each["adapter"] for each in said) == sorted([weightless, unreadable, "0" * 64])
    assert {each["log_level"] for each in said} == {"warning"}


def test_a_damaged_snapshot_does_not_fail_the_one_that_asks(tmp_path: Path) -> None:
    whole = snapshot_of(tmp_path, 7)
    (tmp_path / "snapshots" / "torn").mkdir()
    (tmp_path / "snapshots" / "torn" / "manifest.json").write_text("{")
    assert broken_off(tmp_path / "snapshots", Extent()) == whole.manifest


def test_an_adapter_that_was_trained_and_not_recorded_is_entered_and_others_are_not(tmp_path: Path) -> None:
    registry, adapters, snapshots = Registry(tmp_path), AdapterStore(tmp_path / "adapters"), tmp_path / "snapshots"
    assert enter_unrecorded(registry, adapters, snapshots, ACTOR) is None
    left = entered(tmp_path, snapshot_of(tmp_path, 7))
    elsewhere = snapshot_of(tmp_path / "elsewhere", 8)
    entered(tmp_path, elsewhere, weights="of another home")
    assert enter_unrecorded(registry, adapters, snapshots, ACTOR) == left
    assert registry.state(left) is State.TRAINED
    assert enter_unrecorded(registry, adapters, snapshots, ACTOR) is None


def test_the_pause_after_a_failure_doubles_until_the_data_is_given_up() -> None:
    now = [0.0]
    attempts = Attempts(5.0, lambda: now[0])
    assert attempts.pause_s() == 0
    pauses = []
    for _ in range(3):
        attempts.failed("out of memory", None)
        pauses.append(attempts.pause_s())
        now[0] += pauses[-1]
        assert attempts.pause_s() == 0
    assert pauses == [10.0, 20.0, 40.0]
    for _ in range(MOST - 3):
        attempts.failed("out of memory", Extent(7, 0))
    assert (attempts.failures, attempts.given_up) == (0, Extent(7, 0))
    attempts.failed("died", None, before=2)
    assert attempts.failures == 3
    attempts.succeeded()
    assert (attempts.failures, attempts.error, attempts.pause_s()) == (0, "", 0)


def test_leftovers_of_dead_trainings_are_removed_and_no_other_folder(tmp_path: Path) -> None:
    dead, living, other = tmp_path / uuid7(), tmp_path / uuid7(), tmp_path / "mine"
    for folder in (dead, living, other):
        folder.mkdir()
        (folder / "job.json").write_text("{}")
    (tmp_path / "adapter_config.json").write_text("")
    with locked(living / "lock", wait=False):
        assert remove_leftovers(tmp_path) == (dead.name,)
    assert living.is_dir()
    assert other.is_dir()
    assert remove_leftovers(tmp_path / "missing") == ()


async def stored(loop: Loop, store: ServedStore) -> Snapshot:
    """Enough branched episodes, and the snapshot of a cycle that was stopped while it trained."""
    log = Log(store.store)
    for number in range(loop.settings.learner.min_new_episodes):
        log.publish(*episode(str(number), TASKS[Split.TRAIN][number]))
        for step in (0, 1):
            log.branched(str(number), TASKS[Split.TRAIN][number], step)
    return await build_snapshot(loop.store, HOLDOUT, loop.settings.home / "snapshots")


async def test_a_cycle_that_was_stopped_begins_again_by_itself_and_says_so(
    loop: Loop, served_store: ServedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = await stored(loop, served_store)
    left = loop.settings.home / "training" / uuid7()
    left.mkdir(parents=True)
    (left / "job.json").write_text("{}")
    begun: list[str] = []

    async def record(_: Loop, __: LearnerSettings, ___: Watcher) -> CycleReport:
        begun.append("a cycle")
        await asyncio.Event().wait()
        raise AssertionError("cancelled before")

    monkeypatch.setattr("daemon.learning.role.run_cycle", record)
    with structlog.testing.capture_logs() as said:
        learning = asyncio.create_task(take_turns((Learner(loop),)))

        async def is_begun() -> bool:
            return bool(begun)

        await eventually(is_begun)
        learning.cancel()
        await asyncio.gather(learning, return_exceptions=True)
    told = {each["event"]: each for each in said}
    assert told["a cycle that was broken off is begun again"]["snapshot"] == snapshot.manifest.snapshot_id
    assert told["what a training that did not end left behind is removed"]["folder"] == left.name
    assert not left.exists()


async def test_a_training_that_fails_is_paused_for_and_its_error_is_told(
    loop: Loop, served_store: ServedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stored(loop, served_store)

    async def fail(_: Loop, __: LearnerSettings, ___: Watcher) -> CycleReport:
        raise TrainingError("out of memory")

    monkeypatch.setattr("daemon.learning.role.run_cycle", fail)
    learner = Learner(loop)
    assert await learner.is_due()
    with pytest.raises(TrainingError):
        await learner.run_cycle()
    assert not await learner.is_due()
    status = read_learner_status(loop.settings.home)
    assert status is not None
    assert (status.phase, status.error, status.failures) == (LearnerPhase.PAUSED, "out of memory", 1)
    assert status.until is not None
    assert status.until > status.beat_at
    for _ in range(MOST - 1):
        with pytest.raises(TrainingError):
            await learner.run_cycle()
    monkeypatch.setattr("daemon.learning.attempts.Attempts.pause_s", lambda _: 0.0)
    assert not await learner.is_due(), "the same data is tried again when more of it has come"


@pytest.mark.parametrize(
    ("phase", "error", "told", "failures"),
    [
        (LearnerPhase.TRAINING, "", "the learner died while it trained", 2),
        (LearnerPhase.STOPPED, "no space left", "no space left", 1),
        (LearnerPhase.PAUSED, "out of memory", "out of memory", 1),
    ],
)
async def test_a_learner_pauses_first_where_the_one_before_it_died_of_a_training(
    loop: Loop, served_store: ServedStore, phase: LearnerPhase, error: str, told: str, failures: int
) -> None:
    await stored(loop, served_store)
    now = datetime.now(UTC)
    earlier = LearnerStatus(phase=phase, since=now, beat_at=now, failures=1, error=error)
    learning = asyncio.create_task(take_turns((Learner(loop, earlier=earlier),)))

    async def is_paused() -> bool:
        status = read_learner_status(loop.settings.home)
        return status is not None and status.phase is LearnerPhase.PAUSED

    await eventually(is_paused)
    learning.cancel()
    await asyncio.gather(learning, return_exceptions=True)
    status = read_learner_status(loop.settings.home)
    assert status is not None
    assert (status.failures, status.error) == (failures, told)


async def test_an_error_that_ends_the_learn_role_while_it_trains_counts_as_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def end(_: Settings, __: asyncio.Event, tellings: Tellings) -> None:
        tellings.of[DEFAULT_GROUP].tell(LearnerPhase.TRAINING, failures=1)
        raise OSError("no space left")

    monkeypatch.setattr("daemon.learning.role._learn", end)
    with pytest.raises(OSError, match="no space"):
        await serve(Settings(home=tmp_path).settled(), asyncio.Event())
    status = read_learner_status(tmp_path)
    assert status is not None
    assert (status.phase, status.failures, status.error) == (LearnerPhase.STOPPED, 2, "no space left")


async def test_the_wait_for_branches_is_told_at_its_beginning_and_its_end(
    loop: Loop, served_store: ServedStore
) -> None:
    learner, log = Learner(loop), Log(served_store.store)
    for number in range(loop.settings.learner.min_new_episodes):
        log.publish(*episode(str(number), TASKS[Split.TRAIN][number]))
    with structlog.testing.capture_logs() as said:
        for _ in range(2):
            assert not await learner.is_due()
        waiting = read_learner_status(loop.settings.home)
        for number in range(loop.settings.learner.min_new_episodes):
            for step in (0, 1):
                log.branched(str(number), TASKS[Split.TRAIN][number], step)
        assert await learner.is_due()
    assert waiting is not None
    assert (waiting.phase, waiting.missing) == (LearnerPhase.BRANCHES, 4)
    assert waiting.until is not None
    assert [each["event"] for each in said] == ["a cycle is due and waits for branches", "a cycle begins"]
    assert [each.get("missing", each.get("missing_branches")) for each in said] == [4, 0]


@pytest.mark.nightly
async def test_a_real_training_that_is_stopped_is_done_again_by_the_next_learner_and_only_once(
    loop: Loop, served_store: ServedStore
) -> None:
    telling = Telling(loop.settings.home)

    def learner(updates: int) -> Learner:
        quick = loop.settings.learner.model_copy(
            update={
                "stages": (Stage(objective="imitation", updates=updates),),
                "lora": LoraSettings(rank=2, alpha=4),
                "threads": 1,
            }
        )
        return Learner(replace(loop, settings=loop.settings.model_copy(update={"learner": quick})), telling)

    def folders(name: str) -> set[str]:
        return {path.name for path in (loop.settings.home / name).glob("*") if path.is_dir()}

    await stored(loop, served_store)
    learning = asyncio.create_task(take_turns((learner(100_000),)))

    async def is_training() -> bool:
        return telling.status.phase is LearnerPhase.TRAINING and telling.status.done > 2

    await eventually(is_training)
    assert telling.status.objective == "imitation"
    assert telling.status.memory_bytes > 10_000_000
    learning.cancel()
    await asyncio.gather(learning, return_exceptions=True)
    left = folders("training")
    assert len(left) == 1
    assert loop.adapters.digests() == ()

    learning = asyncio.create_task(take_turns((learner(2),)))

    async def is_trained() -> bool:
        return State.EVALUATING in {loop.registry.state(digest) for digest in loop.adapters.digests()}

    await eventually(is_trained)
    learning.cancel()
    await asyncio.gather(learning, return_exceptions=True)
    assert folders("training") == set()
    assert not await learner(2).is_due()
