"""Trees that begin alike are learned as one, with the losses and gradients that they have one by one."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from accelerate import Accelerator
from peft import PeftModel
from transformers import PreTrainedModel

from learners.adapted_model import adapted_model
from learners.chat import ChatTokenizer
from learners.joined_trees import join_alike, joined, shared_tokens
from learners.lower_layers import LowerLayers
from learners.objectives import OBJECTIVES
from learners.optimisation import Learning
from learners.packed_tree import Tree
from learners.packing import TreePacker
from learners.scoring import Reference, log_probabilities
from learners.settings import LoraSettings
from learners.stages import Batch
from learners.trajectories import Trajectory
from ratchet_client.messages import user
from streams.environments.harness import ChatHarness
from tests.builders.trained import attempt, trajectory
from tests.builders.trees import path

SYSTEM = "You keep the house in order. " * 20


def alike(number: int) -> Trajectory:
    """A trajectory whose opening begins with the same hundred tokens and more, and goes on differently."""
    return replace(trajectory(number), opening=ChatHarness().opening((user(f"{SYSTEM}Put away object {number}."),)))


def attempts(task: int) -> list[Trajectory]:
    """A success and a failure, of which a preference and advantages are made."""
    opening = alike(task).opening
    played = [
        attempt(2 * task, "look", f"take {task}", score=1.0, task_id=f"t{task}"),
        attempt(2 * task + 1, "look", "sing", score=0.0, task_id=f"t{task}"),
    ]
    return [replace(each, opening=opening) for each in played]


@pytest.fixture(scope="module")
def packer(tiny_base: Path) -> TreePacker:
    return TreePacker(ChatTokenizer(tiny_base), 4096)


@pytest.fixture(scope="module", params=[None, 1], ids=["all layers adapted", "the upper one adapted"])
def adapted(request: pytest.FixtureRequest, tiny_base: Path) -> PeftModel:
    torch.manual_seed(0)
    return adapted_model(tiny_base, LoraSettings(rank=2, alpha=4, layers=request.param), None, torch.float32).train()


def packed(objective: str, packer: TreePacker, trajectories: list[Trajectory]) -> list[Tree]:
    chosen = OBJECTIVES[objective]
    found = [chosen.pack(example, packer) for example in chosen.examples(trajectories)]
    return [tree for tree in found if chosen.size(tree)]


def learned(adapted: PeftModel, objective: str, trees: list[Tree], most_joined: int) -> tuple[float, torch.Tensor]:
    """The loss of an update of `trees` and its gradient; of the second of two, when lower layers are known."""
    model = cast(PreTrainedModel, adapted.get_base_model())
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    lower = LowerLayers(model, 2**24)
    learning = Learning(model, parameters, lower, Accelerator(cpu=True), most_joined=most_joined)
    batch = Batch(trees, OBJECTIVES[objective], Reference(model, parameters, lower))
    for _ in range(2):
        for parameter in parameters:
            parameter.grad = None
        (loss,) = learning.gradients([batch])
    assert lower.trees == (len(trees) if lower.count else 0)
    return loss, torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])


@pytest.mark.parametrize("objective", ["imitation", "world_model", "preference_dpo", "preference_kto", "grpo"])
def test_losses_and_gradients_are_those_of_the_trees_one_by_one(
    objective: str, adapted: PeftModel, packer: TreePacker
) -> None:
    trajectories = [alike(number) for number in range(3)] + attempts(4) + attempts(5)
    trees = packed(objective, packer, trajectories)
    assert len(trees) > 1
    (whole,) = join_alike(trees, 10_000)
    assert whole.length < sum(tree.length for tree in trees)
    alone, expected = learned(adapted, objective, trees, 0)
    together, gradient = learned(adapted, objective, trees, 10_000)
    assert together == pytest.approx(alone, rel=1e-4, abs=1e-6)
    assert expected.abs().max() > 0
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)


def test_what_lower_layers_give_does_not_depend_on_what_is_kept(tiny_base: Path, packer: TreePacker) -> None:
    torch.manual_seed(0)
    upper = adapted_model(tiny_base, LoraSettings(rank=2, alpha=4, layers=1), None, torch.float32)
    model = cast(PreTrainedModel, upper.get_base_model())
    trees = packed("imitation", packer, [alike(number) for number in range(3)])
    whole = joined(trees)
    room = trees[0].length * model.config.hidden_size * 4
    found = []
    for most_bytes in (2**24, room + 1, 1):
        lower = LowerLayers(model, most_bytes)
        with torch.no_grad():
            found += [log_probabilities(model, whole, lower) for _ in range(2)]
    assert all(torch.equal(each, found[0]) for each in found)


def test_every_counted_token_sees_what_it_saw_in_its_own_tree(packer: TreePacker) -> None:
    trees = packed("world_model", packer, [alike(number) for number in range(3)])
    whole = joined(trees)
    assert [part.tree for part in whole.parts] == trees
    seen = [(path(whole, at), int(whole.ids[at])) for at in whole.targets.tolist()]
    assert seen == [(path(tree, at), int(tree.ids[at])) for tree in trees for at in tree.targets.tolist()]
    for part in whole.parts:
        assert torch.equal(whole.ids[part.places], part.tree.ids)
        assert torch.equal(whole.positions[part.places], part.tree.positions)


def test_what_counts_is_never_shared(packer: TreePacker) -> None:
    (tree,) = packed("imitation", packer, [alike(1)])
    assert shared_tokens([tree, tree]) == int(tree.targets[0])
    whole = joined([tree, tree])
    assert len(whole.targets) == 2 * len(tree.targets)


def test_trees_are_joined_only_where_they_begin_alike_and_fit_together(packer: TreePacker) -> None:
    first, second, third = packed("imitation", packer, [alike(number) for number in range(3)])
    (other,) = packed("imitation", packer, [trajectory(7)])
    pair = joined([first, third]).length
    assert [len(each.parts) for each in join_alike([first, other, third], pair)] == [2, 0]
    assert [len(each.parts) for each in join_alike([first, second, third], pair)] == [2, 0]
    assert join_alike([first, third], pair - 1) == [first, third]
