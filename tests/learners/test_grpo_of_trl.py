"""Our GRPO gives the losses, gradients and advantages of TRL's on the same tensors."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from learners.chat import ChatTokenizer
from learners.objectives.grpo import Grpo, advantages
from learners.objectives.objective import Example
from learners.packed_tree import Tree
from learners.packing import TreePacker
from tests.builders.trained import attempt

# Importing TRL takes longer than all other tests of GRPO.
pytestmark = pytest.mark.slow

SCORES = [0.0, 1.0, 0.25, 0.0]
LENGTHS = [3, 7, 5, 2]
MOST = max(LENGTHS)


@pytest.fixture(scope="module")
def make_trainer(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """TRL's own trainer of groups of four, whose rewards are `SCORES`."""
    trl = pytest.importorskip("trl", reason="TRL is not installed: pip install trl")
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install datasets")
    output = str(tmp_path_factory.mktemp("trl"))

    def make(**options: Any) -> Any:
        config = trl.GRPOConfig(
            output_dir=output,
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=MOST,
            report_to=[],
            bf16=False,
            use_cpu=True,
            **options,
        )
        prompts = datasets.Dataset.from_list([{"prompt": "look"}] * 4)
        return trl.GRPOTrainer(
            model=str(tiny_base),
            reward_funcs=lambda completions, **_: SCORES[: len(completions)],
            args=config,
            train_dataset=prompts,
        )

    return make


@pytest.mark.parametrize("scale", ["group", "none"])
def test_the_advantages_are_those_of_trl(make_trainer: Callable[..., Any], scale: str) -> None:
    theirs = make_trainer(scale_rewards=scale)._generate_and_score_completions([{"prompt": "look"}] * 4)["advantages"]
    assert advantages(SCORES, scaled=scale == "group") == pytest.approx(theirs.tolist(), abs=1e-5)


@pytest.mark.parametrize("kl", [pytest.param(0.0, marks=pytest.mark.nightly), 0.04])
@pytest.mark.parametrize(("loss_type", "length"), [("dapo", None), ("bnpo", None), ("dr_grpo", MOST)])
def test_the_loss_and_its_gradient_are_those_of_trl(
    make_trainer: Callable[..., Any], tiny_base: Path, loss_type: str, length: int | None, kl: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    new, reference, sampled = (-2 * torch.rand(4, MOST, generator=generator) for _ in range(3))
    mask = torch.tensor([[1] * count + [0] * (MOST - count) for count in LENGTHS])
    weights = torch.tensor(advantages(SCORES))

    theirs = new.clone().requires_grad_()
    trainer = make_trainer(loss_type=loss_type, beta=kl, epsilon=0.2, epsilon_high=0.28, delta=4.0)
    trainer.model.eval()
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (theirs, torch.zeros(4, MOST), None)
    batch = {
        "prompt_ids": torch.zeros(4, 1, dtype=torch.long),
        "prompt_mask": torch.ones(4, 1, dtype=torch.long),
        "completion_ids": torch.zeros(4, MOST, dtype=torch.long),
        "completion_mask": mask,
        "advantages": weights,
        "old_per_token_logps": sampled,
        "ref_per_token_logps": reference,
        "num_items_in_batch": mask.sum(),
    }
    expected = trainer._compute_loss(trainer.model, batch)
    expected.backward()

    ours = new.clone().requires_grad_()
    objective = Grpo(kl=kl, clip_low=0.2, clip_high=0.28, ratio_limit=4.0, length=length)
    packed = objective.pack(Example(attempt(1, "look", score=0.0), 1.0), TreePacker(ChatTokenizer(tiny_base), 2048))
    rows = [(row, slice(0, count)) for row, count in enumerate(LENGTHS)]
    trees = [tree_with(packed, weights[row].item(), sampled[row, counted]) for row, counted in rows]
    losses = [
        objective.loss(tree, ours[row, counted], reference[row, counted])
        for tree, (row, counted) in zip(trees, rows, strict=True)
    ]
    loss = torch.stack(losses).sum() / sum(map(objective.size, trees))
    loss.backward()

    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-5)
    assert theirs.grad.abs().max() > 1e-3


def tree_with(tree: Tree, weight: float, sampled: torch.Tensor) -> Tree:
    """The same tree, as if these were its counted tokens."""
    return dataclasses.replace(tree, weights=torch.full_like(sampled, weight), sampled=sampled)
