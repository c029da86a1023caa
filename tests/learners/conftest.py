"""A snapshot that is quick to learn from."""

import pytest

from learners.settings import LearnerSettings, LoraSettings, Stage
from learners.snapshots import Snapshot, write_snapshot
from learners.trajectories import Branch, Trajectory
from streams.environments.harness import ChatHarness
from streams.events import RecordedStep
from streams.trust.holdout import HoldoutSettings


def trajectory(number: int, task_id: str = "twc/train/0") -> Trajectory:
    """One step of an expert, and one alternative to it."""
    return Trajectory(
        episode_id=f"episode-{number}",
        task_id=task_id,
        opening=ChatHarness().opening(f"Put away object {number}.\n\nYou are in the kitchen."),
        steps=(RecordedStep(action=f"take object {number}", observation="Taken. [score 1.00]"),),
        branches=(Branch(0, "sing", "You sing. [score 0.00]", "policy", "sandbox_exact"),),
    )


def settings(*stages: Stage, lora: LoraSettings | None = None) -> LearnerSettings:
    """A training that takes seconds."""
    chosen = stages or (Stage(objective="world_model", updates=4), Stage(objective="imitation", updates=8))
    return LearnerSettings(stages=chosen, lora=lora or LoraSettings(rank=4, alpha=8), learning_rate=5e-3, threads=1)


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    nothing_held_out = HoldoutSettings(selection=0.0, confirmation=0.0)
    return write_snapshot([trajectory(n) for n in range(3)], nothing_held_out, tmp_path_factory.mktemp("home"), 7, {})
