"""A joint update is the weighted sum of its losses, each a mean of its own, and tells each of them."""

import copy
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from peft import PeftModel
from pydantic import ValidationError
from transformers import PreTrainedModel

from learners.adapted_model import adapted_model
from learners.batches import Limits, Packer
from learners.chat import ChatTokenizer
from learners.lower_layers import LowerLayers
from learners.memory import EMBEDDED_SHAPE, training_memory
from learners.objectives import OBJECTIVES
from learners.objectives.objective import Example
from learners.optimisation import Learning
from learners.packing import TreePacker
from learners.settings import Auxiliary, LoraSettings, Progress, Stage, TrainingJob
from learners.snapshots import Snapshot, write_snapshot
from learners.stages import Batch
from learners.trainer import train
from learners.trajectories import Trajectory
from streams.errors import TrainingError
from streams.trust.holdout import HoldoutSettings
from tests.builders.trained import settings, step, trajectory

NOTHING_HELD_OUT = HoldoutSettings(selection=0.0, confirmation=0.0)
JOINT = Stage(
    objective="world_model",
    updates=3,
    trajectories=1,
    auxiliary=(Auxiliary(objective="imitation", weight=0.25, trajectories=2),),
)


@pytest.fixture(scope="module")
def adapted(tiny_base: Path) -> PeftModel:
    torch.manual_seed(0)
    return adapted_model(tiny_base, LoraSettings(rank=2, alpha=4), None, torch.float32).train()


def gradients(adapted: PeftModel, *batches: Batch) -> tuple[list[float], torch.Tensor]:
    """The losses and the gradients of one update."""
    adapted = copy.deepcopy(adapted)
    model = adapted.get_base_model()
    assert isinstance(model, PreTrainedModel)
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    losses = Learning(model, parameters, LowerLayers(model, 0), Accelerator(cpu=True)).gradients(batches)
    return losses, torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])


def longer(number: int) -> Trajectory:
    """Three steps, whose actions are of several lengths."""
    whole = trajectory(number)
    steps = (*whole.steps, step("go", "You are in the hall."), step("put it on the long wooden table", "Done."))
    return Trajectory(whole.episode_id, whole.task_id, whole.opening, steps, whole.branches)


def test_gradients_are_the_weighted_sum_of_those_of_each_loss_alone(adapted: PeftModel, tiny_base: Path) -> None:
    model = adapted.get_base_model()
    assert isinstance(model, PreTrainedModel)
    packer = Packer(TreePacker(ChatTokenizer(tiny_base), 2048), Limits(model), {})

    def batch(name: str, weight: float, *trajectories: Trajectory) -> Batch:
        objective = OBJECTIVES[name]
        trees = [packer.pack(Example(one), objective) for one in trajectories]
        return Batch([tree for tree in trees if tree is not None], objective, weight=weight)

    world = batch("world_model", 1.0, trajectory(0))
    imitation = batch("imitation", 1.0, longer(1), trajectory(2), longer(3))
    sizes = [sum(map(each.objective.size, each.trees)) for each in (world, imitation)]
    assert sizes[0] != sizes[1], "a mean over both together would be another loss"
    (first,), expected = gradients(adapted, world)
    (second,), other = gradients(adapted, imitation)
    joint = Batch(imitation.trees, imitation.objective, weight=0.25)
    losses, found = gradients(adapted, world, joint)
    assert losses == pytest.approx([first, second], abs=1e-6)
    assert min(expected.abs().max(), other.abs().max()) > 1e-3
    torch.testing.assert_close(found, expected + 0.25 * other, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_each_loss_is_told_and_both_fall(
    tiny_base: Path, snapshot: Snapshot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = JOINT.model_copy(update={"updates": 12})
    job = TrainingJob(base=tiny_base, snapshot=snapshot.folder, output=tmp_path, settings=settings(stage))
    train(job)
    told = [Progress.model_validate_json(line) for line in capsys.readouterr().out.splitlines()]
    assert [one.update for one in told] == list(range(1, 13))
    assert {one.objective for one in told} == {"world_model"}
    for one in told:
        assert one.loss == pytest.approx(one.losses["world_model"] + 0.25 * one.losses["imitation"])
    for name in ("world_model", "imitation"):
        assert told[-1].losses[name] < told[0].losses[name]


def test_an_auxiliary_with_nothing_to_learn_from_is_an_error_that_names_it(tiny_base: Path, tmp_path: Path) -> None:
    whole = trajectory(1)
    bare = Trajectory(whole.episode_id, whole.task_id, whole.opening, whole.steps)
    snapshot = write_snapshot([bare], NOTHING_HELD_OUT, tmp_path, 0, {})
    stage = Stage(objective="imitation", updates=1, auxiliary=(Auxiliary(objective="world_model"),))
    job = TrainingJob(base=tiny_base, snapshot=snapshot.folder, output=tmp_path / "output", settings=settings(stage))
    with pytest.raises(TrainingError, match="holds nothing that world_model, an auxiliary of imitation, could learn"):
        train(job)


def test_an_objective_stands_once_in_a_stage() -> None:
    with pytest.raises(ValidationError, match="stands twice"):
        Stage(objective="imitation", updates=1, auxiliary=(Auxiliary(objective="imitation"),))


def test_a_stage_without_auxiliaries_is_written_as_before_there_were_any() -> None:
    plain = Stage(objective="imitation", updates=1)
    assert plain.model_dump() == {"objective": "imitation", "updates": 1, "trajectories": 2}
    assert Stage.model_validate_json(JOINT.model_dump_json()) == JOINT
    assert str(JOINT) == "3 updates of world_model + 0.25 imitation"


def test_branches_of_an_auxiliary_need_memory_as_those_of_a_stage() -> None:
    alone = Stage(objective="imitation", updates=1)
    joint = Stage(objective="imitation", updates=1, auxiliary=(Auxiliary(objective="world_model"),))
    needed = [training_memory(EMBEDDED_SHAPE, settings(stage), 64, 4) for stage in (alone, joint)]
    assert needed[0] < needed[1]
