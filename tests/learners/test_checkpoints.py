"""A training that was killed goes on from its checkpoint and ends in the bytes of one that was not."""

import copy
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import pytest
import torch
from accelerate import Accelerator
from peft import PeftModel
from transformers import PreTrainedModel

import learners.trainer
from learners.adapted_model import adapted_model
from learners.batches import Limits, Packer
from learners.chat import ChatTokenizer
from learners.checkpoints import MOST_STARTS, Checkpoint, Checkpoints
from learners.lower_layers import LowerLayers
from learners.objectives import OBJECTIVES
from learners.objectives.imitation import Imitation
from learners.optimisation import Learning, Optimisation
from learners.packed_tree import Tree
from learners.packing import TreePacker
from learners.settings import CHECKPOINT, Auxiliary, LoraSettings, Progress, ReplaySettings, Stage, TrainingJob
from learners.snapshots import Snapshot, read_trajectories, write_snapshot
from learners.trajectories import BASE_SAMPLE
from streams.trust.holdout import HoldoutSettings
from tests.builders.trained import settings, trajectory

# Three examples, so that a round of them does not end with a checkpoint in the second stage.
STAGES = (
    Stage(objective="world_model", updates=10, trajectories=1),
    Stage(objective="imitation", updates=11, trajectories=1),
)
JOINT = Stage(
    objective="world_model",
    updates=11,
    trajectories=1,
    auxiliary=(Auxiliary(objective="imitation", trajectories=1), Auxiliary(objective="echo", weight=0.5)),
)
REPLAY = ReplaySettings(enabled=True, share=0.4, prioritised=True, base_share=0.2)


class NearTheBeginning(Imitation):
    """Imitation that stays near the policy of the beginning of its stage."""

    needs_reference = True

    def loss(self, tree: Tree, log_probabilities: torch.Tensor, reference: torch.Tensor | None) -> torch.Tensor:
        assert reference is not None
        return super().loss(tree, log_probabilities, None) + (log_probabilities - reference).square().sum()


@dataclass(frozen=True, slots=True)
class Trained:
    """The update that a training began with, and the weights that it came to."""

    first: int
    weights: bytes


class Run(Protocol):
    def __call__(self, job: TrainingJob, dies_at: int = 0) -> Trained: ...


class KilledError(Exception):
    """Stands for a SIGKILL, which ends a process as suddenly, at an update."""


@pytest.fixture
def job(tiny_base: Path, snapshot: Snapshot, tmp_path: Path) -> TrainingJob:
    chosen = settings(*STAGES, lora=LoraSettings(rank=2, alpha=4, layers=1)).model_copy(update={"checkpoint_every": 3})
    return TrainingJob(base=tiny_base, snapshot=snapshot.folder, output=tmp_path / "output", settings=chosen, seed=5)


@pytest.fixture(scope="module")
def adapted(tiny_base: Path) -> PeftModel:
    torch.manual_seed(0)
    return adapted_model(tiny_base, LoraSettings(rank=2, alpha=4, layers=1), None, torch.float32).train()


@pytest.fixture
def run(adapted: PeftModel, tiny_base: Path) -> Run:
    """Trains the same fresh adapter until it dies at an update, 0 for never."""
    tokenizer = ChatTokenizer(tiny_base)

    def train(job: TrainingJob, dies_at: int = 0) -> Trained:
        told: list[int] = []
        trajectories = read_trajectories(job.snapshot)

        def tell(progress: Progress) -> None:
            told.append(progress.update)
            if progress.update == dies_at:
                raise KilledError

        trained = copy.deepcopy(adapted)
        model = trained.get_base_model()
        assert isinstance(model, PreTrainedModel)
        parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
        learning = Learning(model, parameters, LowerLayers(model, 2**20), Accelerator(cpu=True))
        packer = Packer(TreePacker(tokenizer, job.settings.max_length), Limits(model), {})
        optimisation = Optimisation(job, learning, packer, tell)
        if dies_at:
            with pytest.raises(KilledError):
                optimisation.run(trajectories)
        else:
            optimisation.run(trajectories)
        return Trained(told[0], b"".join(parameter.detach().numpy().tobytes() for parameter in parameters))

    return train


def written(job: TrainingJob) -> tuple[bytes, ...]:
    return tuple((job.output / name).read_bytes() for name in ("adapter_model.safetensors", "probes.json"))


@pytest.mark.slow
def test_killed_at_any_update_it_ends_in_the_same_bytes(
    job: TrainingJob, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(OBJECTIVES, "imitation", NearTheBeginning())
    whole = run(job)
    assert whole.first == 1
    began = []
    for update in range(1, 21):
        other = job.model_copy(update={"output": tmp_path / str(update)})
        run(other, update)
        resumed = run(other)
        assert resumed.weights == whole.weights, f"killed at update {update}"
        began.append(resumed.first)
    # At update 3 it dies before its checkpoint is written.
    assert began == [1, 1, 1, 4, 4, 4, 7, 7, 7, 10, 10, 10, 13, 13, 13, 16, 16, 16, 19, 19]


@pytest.mark.slow
def test_killed_in_a_joint_stage_with_replay_it_ends_in_the_same_bytes(
    job: TrainingJob, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(OBJECTIVES, "imitation", NearTheBeginning())
    mixed = [replace(trajectory(number), older=number > 2) for number in range(7)]
    mixed.append(replace(trajectory(7), actor_kind=BASE_SAMPLE))
    snapshot = write_snapshot(mixed, HoldoutSettings(selection=0.0, confirmation=0.0), tmp_path, 7, {})
    chosen = job.settings.model_copy(update={"stages": (JOINT,), "replay": REPLAY})
    job = job.model_copy(update={"snapshot": snapshot.folder, "settings": chosen})
    whole = run(job)
    for update in (2, 5, 10):
        other = job.model_copy(update={"output": tmp_path / str(update)})
        run(other, update)
        resumed = run(other)
        assert resumed.weights == whole.weights, f"killed at update {update}"
        assert resumed.first == 1 + 3 * ((update - 1) // 3)
    plain = job.model_copy(
        update={"output": tmp_path / "plain", "settings": job.settings.model_copy(update={"replay": ReplaySettings()})}
    )
    assert run(plain).weights != whole.weights


def test_another_job_in_the_same_folder_begins_anew(job: TrainingJob, run: Run) -> None:
    run(job, 5)
    other = job.model_copy(update={"seed": 6})
    assert other.job_id != job.job_id == job.model_copy(update={"output": Path("elsewhere")}).job_id
    assert run(other).first == 1


def test_what_it_always_dies_of_is_not_gone_on_from_for_ever(job: TrainingJob, run: Run) -> None:
    began = [run(job, 5).first for _ in range(MOST_STARTS + 2)]
    assert began == [1, *[4] * MOST_STARTS, 1]


def test_a_damaged_checkpoint_is_no_checkpoint(job: TrainingJob, run: Run) -> None:
    run(job, 5)
    path = job.output / CHECKPOINT
    for content in (path.read_bytes()[:-200], b"", b"no archive"):
        path.write_bytes(content)
        assert Checkpoints(job.output, job.job_id).read() is None
        assert not path.exists()


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    tensor = torch.rand(3)
    checkpoint = Checkpoint("a", 3, 1, [[[2, 0]]], {"e": "too long"}, tensor, tensor, [tensor], None, {"lr": 1.0}, {})
    checkpoints = Checkpoints(tmp_path, "a")
    assert checkpoints.read() is None
    checkpoints.write(checkpoint)
    checkpoints.write(replace(checkpoint, updates=6))
    found = checkpoints.read()
    assert found is not None
    assert (found.updates, found.pools, found.left_out, found.reference) == (6, [[[2, 0]]], {"e": "too long"}, None)
    assert torch.equal(found.parameters[0], tensor)
    assert Checkpoints(tmp_path, "b").read() is None


@pytest.mark.nightly
def test_a_process_that_is_killed_again_and_again_ends_in_the_same_bytes(job: TrainingJob) -> None:
    def start(job: TrainingJob, until: int | None) -> list[int]:
        """The updates that a process told of; it is killed after `until`."""
        job.output.mkdir(parents=True, exist_ok=True)
        document = job.output / "job.json"
        document.write_text(job.model_dump_json())
        told = []
        with subprocess.Popen(
            [sys.executable, "-m", "learners.trainer", str(document)],
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                told.append(Progress.model_validate_json(line).update)
                if told[-1] == until:
                    process.send_signal(signal.SIGKILL)
        assert process.returncode == (0 if until is None else -signal.SIGKILL)
        return told

    whole = job.model_copy(update={"output": job.output.parent / "whole"})
    learners.trainer.train(whole)
    for update in (5, 17):
        start(job, update)
    assert start(job, None)[0] in (16, 19)
    assert written(job) == written(whole)
