"""GRPO: groups, advantages, which tokens count, clipping, TRL's loss, and learning from failures."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from learners import tree_attention
from learners.chat import ChatTokenizer
from learners.objectives import OBJECTIVES
from learners.objectives.grpo import Grpo, groups
from learners.objectives.objective import Example
from learners.packed_tree import Tree
from learners.packing import TreePacker
from learners.scoring import log_probabilities
from learners.settings import Progress, Stage, TrainingJob
from learners.snapshots import write_snapshot
from learners.trainer import train
from learners.trajectories import Trajectory
from ratchet_client.messages import assistant, call
from streams.trust.holdout import HoldoutSettings
from tests.builders.trained import attempt, settings

MALFORMED = assistant("Now.", call("look", '{"at": "fr', "1"))
NOTHING_HELD_OUT = HoldoutSettings(selection=0.0, confirmation=0.0)


@pytest.fixture(scope="module")
def packer(tiny_base: Path) -> TreePacker:
    return TreePacker(ChatTokenizer(tiny_base), 2048)


def counted(packer: TreePacker, example: Example, tiny_base: Path) -> str:
    tree = OBJECTIVES["grpo"].pack(example, packer)
    return str(ChatTokenizer(tiny_base).tokenizer.decode(tree.ids[tree.targets].tolist()))


def tree_of(packer: TreePacker, advantage: float, log_probabilities: Sequence[float] = ()) -> Tree:
    """One action of one counted token per log-probability, or of three without any."""
    tree = OBJECTIVES["grpo"].pack(Example(attempt(1, "sing", score=0.0), advantage), packer)
    size = len(log_probabilities) or 3
    sampled = torch.tensor(log_probabilities or [float("nan")] * size)
    weights = torch.full((size,), advantage)
    return dataclasses.replace(tree, weights=weights, sampled=sampled)


def test_a_group_is_all_practised_attempts_of_one_adapter_at_one_task() -> None:
    found = groups(
        [
            attempt(1, "sing", score=0.0),
            attempt(2, "look", score=1.0, task_id="twc/train/1"),
            attempt(3, "look", score=1.0),
            attempt(4, "look", score=1.0, adapter="b" * 64),
            dataclasses.replace(attempt(5, "look", score=1.0), origin="production"),
            attempt(6, score=0.0),
            attempt(7, "look", score=math.nan),
        ]
    )
    assert [[member.episode_id[-1] for member in group] for group in found] == [["1", "3"], ["2"], ["4"]]


def test_an_advantage_is_the_distance_from_the_groups_mean_in_deviations() -> None:
    found = OBJECTIVES["grpo"].examples(
        [attempt(number, "look", score=score) for number, score in enumerate([1.0, 0.0, 0.0, 0.0])]
    )
    assert [example.weight for example in found] == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-3)


def test_without_scaling_an_advantage_is_the_distance_itself() -> None:
    found = OBJECTIVES["dr_grpo"].examples([attempt(1, "look", score=1.0), attempt(2, "look", score=0.0)])
    assert [example.weight for example in found] == [0.5, -0.5]


@pytest.mark.parametrize("scores", [[0.0, 0.0, 0.0], [1.0, 1.0], [0.1 + 0.2, 0.3], [1.0]])
def test_a_group_without_spread_gives_no_example(scores: list[float]) -> None:
    assert not OBJECTIVES["grpo"].examples([attempt(n, "look", score=score) for n, score in enumerate(scores)])


def test_an_attempt_as_good_as_its_groups_mean_gives_no_example() -> None:
    found = OBJECTIVES["grpo"].examples([attempt(n, "look", score=score) for n, score in enumerate([0.0, 0.5, 1.0])])
    assert [example.trajectory.score for example in found] == [0.0, 1.0]


def test_all_actions_of_an_attempt_are_in_one_tree_and_nothing_else_counts(packer: TreePacker, tiny_base: Path) -> None:
    example = Example(attempt(1, "open fridge", "take plate", score=1.0), 0.5)
    assert counted(packer, example, tiny_base) == "open fridge<|im_end|>take plate<|im_end|>"
    tree = OBJECTIVES["grpo"].pack(example, packer)
    assert tree.weights.tolist() == [0.5] * len(tree.targets)


@pytest.mark.slow
def test_a_malformed_call_is_made_less_likely_and_never_likelier(packer: TreePacker, tiny_base: Path) -> None:
    mixed = attempt(1, MALFORMED, "take plate", score=1.0)
    assert counted(packer, Example(mixed, 0.5), tiny_base) == "take plate<|im_end|>"
    assert counted(packer, Example(mixed, -0.5), tiny_base).startswith("Now.\n<tool_call>")


def test_an_empty_action_of_a_failure_counts_its_end(packer: TreePacker, tiny_base: Path) -> None:
    assert counted(packer, Example(attempt(1, assistant(""), score=0.0), -1.0), tiny_base) == "<|im_end|>"


def test_a_success_of_malformed_calls_alone_gives_no_example() -> None:
    found = OBJECTIVES["grpo"].examples([attempt(1, MALFORMED, score=1.0), attempt(2, MALFORMED, score=0.0)])
    assert [example.trajectory.score for example in found] == [0.0]


def test_the_recorded_log_probabilities_come_with_their_tokens(packer: TreePacker, tiny_base: Path) -> None:
    size = len(ChatTokenizer(tiny_base).encode("take plate<|im_end|>"))
    recorded = tuple(-0.1 * (index + 1) for index in range(size))
    example = Example(attempt(1, "open fridge", "take plate", score=1.0, log_probabilities=((-1.0,), recorded)), 1.0)
    tree = OBJECTIVES["grpo"].pack(example, packer)
    assert tree.sampled[-size:].tolist() == pytest.approx(recorded)
    assert tree.sampled[:-size].isnan().all()


@pytest.mark.parametrize(
    ("advantage", "ratio", "gradient"),
    [
        (1.0, 1.0, 1.0),
        (1.0, 1.2, 1.2),
        (1.0, 1.3, 0.0),
        (1.0, 0.5, 0.5),
        (-1.0, 1.0, -1.0),
        (-1.0, 0.75, 0.0),
        (-1.0, 3.0, -3.0),
        (-1.0, 5.0, 0.0),
        (-1.0, math.inf, 0.0),
    ],
)
def test_the_ratio_is_clipped_where_it_already_moved_far_enough(
    packer: TreePacker, advantage: float, ratio: float, gradient: float
) -> None:
    old = -200.0 if math.isinf(ratio) else math.log(0.1)
    new = torch.tensor([-1.0 if math.isinf(ratio) else old + math.log(ratio)], requires_grad=True)
    OBJECTIVES["grpo"].loss(tree_of(packer, advantage, [old]), new, torch.zeros(1)).backward()
    assert new.grad is not None
    assert -new.grad.item() == pytest.approx(gradient)


def test_the_stages_beginning_stands_for_log_probabilities_that_are_not_known(packer: TreePacker) -> None:
    new = torch.tensor([-1.0, -1.0, -1.0], requires_grad=True)
    tree = dataclasses.replace(tree_of(packer, 1.0), sampled=torch.tensor([-1.1, math.nan, math.nan]))
    loss = OBJECTIVES["grpo"].loss(tree, new, torch.tensor([-9.0, -1.05, -1.0]))
    assert -loss.item() == pytest.approx(math.exp(0.1) + math.exp(0.05) + 1.0)
    with pytest.raises(ValueError, match="give the reference"):
        OBJECTIVES["grpo"].loss(tree, new, None)


def test_the_mean_is_over_tokens_or_over_a_constant(packer: TreePacker) -> None:
    tree = OBJECTIVES["grpo"].pack(Example(attempt(1, "sing", score=0.0), -2.0), packer)
    assert OBJECTIVES["grpo"].size(tree) == len(tree.targets)
    assert Grpo("dr_grpo", length=512).size(tree) == 512


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> PreTrainedModel:
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        tiny_base, dtype=torch.float32, attn_implementation=tree_attention.NAME
    )
    return loaded


@pytest.mark.parametrize("name", ["grpo", "dr_grpo"])
def test_a_few_updates_make_the_better_action_likelier_and_the_worse_one_less_likely(
    name: str, packer: TreePacker, tiny_base: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(
        tiny_base, dtype=torch.float32, attn_implementation=tree_attention.NAME
    )
    objective = OBJECTIVES[name]
    examples = objective.examples([attempt(1, "take plate", score=1.0), attempt(2, "sing loudly", score=0.0)])
    trees = [objective.pack(example, packer) for example in examples]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    before = [log_probabilities(model, tree).detach() for tree in trees]
    for _ in range(3):
        optimizer.zero_grad()
        size = sum(map(objective.size, trees))
        for tree, reference in zip(trees, before, strict=True):
            (objective.loss(tree, log_probabilities(model, tree), reference) / size).backward()
        optimizer.step()
    better, worse = (
        log_probabilities(model, tree).sum() - reference.sum() for tree, reference in zip(trees, before, strict=True)
    )
    assert better > 0
    assert worse < 0


@pytest.fixture
def train_on(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[[str, list[Trajectory]], list[Progress]]:
    """Trains in this process; returns what it told."""

    def run(objective: str, trajectories: list[Trajectory]) -> list[Progress]:
        snapshot = write_snapshot(trajectories, NOTHING_HELD_OUT, tmp_path, 0, {})
        stage = Stage.model_validate({"objective": objective, "updates": 4})
        job = TrainingJob(
            base=tiny_base, snapshot=snapshot.folder, output=tmp_path / "output", settings=settings(stage)
        )
        train(job)
        return [Progress.model_validate_json(line) for line in capsys.readouterr().out.splitlines()]

    return run


def test_a_training_learns_from_a_success_and_a_failure(
    train_on: Callable[[str, list[Trajectory]], list[Progress]],
) -> None:
    told = train_on("grpo", [attempt(1, "take plate", score=1.0), attempt(2, "sing", score=0.0)])
    assert [one.objective for one in told] == ["grpo"] * 4
    assert told[-1].loss < told[0].loss
