"""A cycle that learns rationales: they are written for its snapshot, counted, readable, and found again."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI

from daemon.config import DomainSettings
from daemon.learning import cycle
from daemon.learning.cycle import stopped_in_training, train_candidate
from daemon.learning.loop import Loop
from learners.reflections.records import read_reflections
from learners.settings import CHECKPOINT, REFLECTIONS, LearnerSettings, LoraSettings, Stage, TrainingJob
from learners.snapshots import Snapshot, build_snapshot
from learners.training import JOB
from streams.branching.settings import BranchingSettings
from streams.errors import TrainingError
from streams.sandboxes.pool import sandbox_pool
from streams.trust.holdout import Split
from tests.builders.episodes import HOLDOUT, TASKS, episode
from tests.builders.reflected import GOOD
from tests.builders.stored import Log, ServedStore
from tests.served import served

ONE, OTHER = TASKS[Split.TRAIN][:2]
QUICK = LearnerSettings(
    stages=(Stage(objective="reflection", updates=1),), lora=LoraSettings(rank=2, alpha=4), threads=1
)


@pytest.fixture
def log(served_store: ServedStore) -> Log:
    log = Log(served_store.store)
    log.publish(*episode("one", ONE), *episode("other", OTHER))
    log.branched("one", ONE, 1)
    log.branched("other", OTHER, 1)
    return log


@pytest.fixture
async def snapshot(loop: Loop, log: Log) -> Snapshot:
    return await build_snapshot(loop.store, HOLDOUT, loop.settings.home / "snapshots")


@pytest.fixture
async def reasons_loop(loop: Loop) -> AsyncIterator[Loop]:
    """A loop in whose domain replies may give reasons first."""
    branching = BranchingSettings(environments={"textworld_express": {"reasons": True}})
    domain = DomainSettings(environment="textworld_express")
    async with sandbox_pool("textworld_express", branching, size=1) as pool:
        yield replace(loop, pool=pool, settings=loop.settings.model_copy(update={"domain": domain}))


@pytest.fixture
def settings() -> Iterator[LearnerSettings]:
    """The settings of a writer that, of one of the two episodes, knows too much."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    def chat(body: dict[str, Any]) -> dict[str, Any]:
        said = "The expert goes on. " if OTHER in body["messages"][1]["content"].splitlines()[1] else ""
        message = {"role": "assistant", "content": f"{said}{GOOD}\nAction: go 1"}
        return {"model": body["model"], "choices": [{"message": message, "finish_reason": "stop"}]}

    with served(app) as url:
        reflection = QUICK.reflection.model_copy(update={"writer": "model", "url": url, "model": "large"})
        yield QUICK.model_copy(update={"reflection": reflection})


async def stop_in_training(
    loop: Loop, settings: LearnerSettings, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> TrainingJob:
    """The job of a training that was stopped after its first checkpoint."""
    jobs: list[TrainingJob] = []

    async def stop(job: TrainingJob, _: object) -> None:
        job.output.mkdir(parents=True)
        (job.output / JOB).write_text(job.model_dump_json())
        (job.output / CHECKPOINT).write_bytes(b"weights")
        jobs.append(job)
        raise TrainingError("stopped")

    with monkeypatch.context() as patched:
        patched.setattr(cycle, "run_training", stop)
        with pytest.raises(TrainingError, match="stopped"):
            await train_candidate(loop, settings, snapshot, lambda *_: None)
    return jobs[0]


@pytest.mark.nightly
async def test_rationales_that_are_dropped_are_counted_and_can_be_read(
    reasons_loop: Loop, settings: LearnerSettings, snapshot: Snapshot
) -> None:
    digest = await train_candidate(reasons_loop, settings, snapshot, lambda *_: None)
    manifest = reasons_loop.adapters.manifest(digest)
    assert manifest.training.reflections == {"model/kept": 1, "model/leak": 1}
    assert [stage.objective for stage in manifest.settings.stages] == ["reflection"]
    read = read_reflections(reasons_loop.adapters.folder(digest) / REFLECTIONS)
    assert {each.episode_id: (each.dropped, each.text, each.alternatives) for each in read} == {
        "one": ("", GOOD, ("jump",)),
        "other": ("leak", f"The expert goes on. {GOOD}", ("jump",)),
    }


async def test_a_training_that_was_stopped_goes_on_with_its_rationales_and_without_them_it_does_not(
    reasons_loop: Loop, settings: LearnerSettings, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await stop_in_training(reasons_loop, settings, snapshot, monkeypatch)
    assert job.reflections is not None
    assert job.reflections.parent == snapshot.folder
    assert await stopped_in_training(reasons_loop, settings) == snapshot
    whole = job.reflections.read_bytes()
    job.reflections.write_bytes(whole.splitlines(keepends=True)[0])
    assert await stopped_in_training(reasons_loop, settings) is None
    job.reflections.write_bytes(b"no rationale\n")
    assert await stopped_in_training(reasons_loop, settings) is None
    job.reflections.unlink()
    assert await stopped_in_training(reasons_loop, settings) is None


async def test_where_no_rationale_can_be_learned_a_cycle_imitates_and_says_why(
    loop: Loop, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await stop_in_training(loop, QUICK, snapshot, monkeypatch)
    assert [stage.objective for stage in job.settings.stages] == ["imitation"]
    assert job.reflections is not None
    assert [each.dropped for each in read_reflections(job.reflections)] == ["no_place", "no_place"]


async def test_a_cycle_without_the_objective_writes_none(
    loop: Loop, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    imitation = QUICK.model_copy(update={"stages": (Stage(objective="imitation", updates=1),)})
    job = await stop_in_training(loop, imitation, snapshot, monkeypatch)
    assert job.reflections is None
    assert not list(snapshot.folder.glob("*.jsonl"))
