"""A cycle that was stopped while it trained goes on from its checkpoint, unless another training would begin now."""

from pathlib import Path

import pytest

from daemon.learning import cycle
from daemon.learning.cycle import stopped_in_training, train_candidate
from daemon.learning.loop import Loop
from learners.settings import CHECKPOINT, LearnerSettings, LoraSettings, Stage, TrainingJob
from learners.snapshots import Snapshot, build_snapshot
from learners.training import JOB, interrupted, remove_leftovers
from ratchet_client.events import RetractionEvent
from streams.errors import TrainingError
from streams.runtime.json_lines import locked
from streams.trust.holdout import Split
from tests.builders.episodes import HOLDOUT, TASKS, episode
from tests.builders.stored import Log, ServedStore

QUICK = LearnerSettings(
    stages=(Stage(objective="imitation", updates=1),), lora=LoraSettings(rank=2, alpha=4), threads=1
)


@pytest.fixture
def log(served_store: ServedStore) -> Log:
    log = Log(served_store.store)
    log.publish(*episode("stays", TASKS[Split.TRAIN][0]), *episode("leaves", TASKS[Split.TRAIN][1]))
    return log


@pytest.fixture
async def stopped(loop: Loop, log: Log, monkeypatch: pytest.MonkeyPatch) -> tuple[Snapshot, Path]:
    """The snapshot of a training that was stopped after its first checkpoint, and the training's folder."""
    snapshot = await build_snapshot(loop.store, HOLDOUT, loop.settings.home / "snapshots")
    folders = []

    async def stop(job: TrainingJob, _: object) -> None:
        job.output.mkdir(parents=True)
        (job.output / JOB).write_text(job.model_dump_json())
        (job.output / CHECKPOINT).write_bytes(b"weights")
        folders.append(job.output)
        raise TrainingError("stopped")

    with monkeypatch.context() as patched:
        patched.setattr(cycle, "run_training", stop)
        with pytest.raises(TrainingError, match="stopped"):
            await train_candidate(loop, QUICK, snapshot, lambda *_: None)
    return snapshot, folders[0]


async def test_it_goes_on_with_its_snapshot_though_more_has_come_since(
    loop: Loop, log: Log, stopped: tuple[Snapshot, Path]
) -> None:
    snapshot, folder = stopped
    log.publish(*episode("new", TASKS[Split.TRAIN][2]))
    assert await stopped_in_training(loop, QUICK) == snapshot
    assert [job.output for job in interrupted(folder.parent)] == [folder]


async def test_with_other_settings_another_training_begins(loop: Loop, stopped: tuple[Snapshot, Path]) -> None:
    assert await stopped_in_training(loop, QUICK.model_copy(update={"learning_rate": 1e-3})) is None


async def test_it_does_not_go_on_where_consent_was_revoked_since(
    loop: Loop, log: Log, stopped: tuple[Snapshot, Path]
) -> None:
    log.publish(RetractionEvent(principal="leaves", reason="asked"))
    assert await stopped_in_training(loop, QUICK) is None


async def test_it_does_not_go_on_from_a_changed_snapshot_or_without_a_checkpoint(
    loop: Loop, stopped: tuple[Snapshot, Path]
) -> None:
    snapshot, folder = stopped
    (snapshot.folder / "branches.parquet").write_bytes(b"other")
    assert await stopped_in_training(loop, QUICK) is None
    (folder / CHECKPOINT).unlink()
    assert interrupted(folder.parent) == ()


async def test_its_folder_stays_while_it_can_go_on_and_is_not_looked_at_while_it_trains(
    stopped: tuple[Snapshot, Path],
) -> None:
    _, folder = stopped
    assert remove_leftovers(folder.parent, (folder.name,)) == ()
    with locked(folder / "lock", wait=False):
        assert interrupted(folder.parent) == ()
        assert remove_leftovers(folder.parent) == ()
    assert remove_leftovers(folder.parent) == (folder.name,)
