"""ExGRPO: which past successes are replayed, the groups they join, how their tokens count, and learning from them."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from learners import tree_attention
from learners.chat import ChatTokenizer
from learners.objectives import OBJECTIVES
from learners.objectives.exgrpo import Experience, experiences, select, split
from learners.objectives.grpo import groups
from learners.objectives.objective import Example
from learners.packing import TreePacker
from learners.scoring import log_probabilities
from learners.settings import Progress, Stage, TrainingJob
from learners.snapshots import write_snapshot
from learners.trainer import train
from learners.trajectories import Trajectory
from streams.trust.holdout import HoldoutSettings
from tests.builders.trained import attempt, settings

OLD, NEW = "0" * 64, "1" * 64
HARD, SURE = "twc/train/1", "twc/train/2"


def past(number: int, score: float, entropy: float = 0.5, task_id: str = HARD) -> Trajectory:
    return attempt(
        number, "take plate", score=score, task_id=task_id, adapter=OLD, log_probabilities=((-entropy, -entropy),)
    )


def present(number: int, score: float, task_id: str = HARD) -> Trajectory:
    return attempt(number, "sing", score=score, task_id=task_id, adapter=NEW)


def experience(name: str, correctness: float, entropy: float) -> Experience:
    one = dataclasses.replace(past(1, 1.0, entropy), episode_id=name)
    return Experience(one, (one,), correctness)


def replays(trajectories: list[Trajectory]) -> dict[str, float]:
    """The replayed episodes with their advantages."""
    found = OBJECTIVES["exgrpo"].examples(trajectories)
    return {example.trajectory.episode_id: example.weight for example in found if example.replayed}


def test_the_present_adapter_is_the_one_of_the_last_attempt() -> None:
    now, before = split(groups([present(9, 0.0), past(1, 1.0), past(2, 1.0, task_id=SURE)]))
    assert [group[0].adapter for group in now] == [NEW]
    assert [group[0].adapter for group in before] == [OLD, OLD]
    assert split([]) == ([], [])


def test_of_a_tasks_past_successes_the_one_of_the_lowest_entropy_is_replayed() -> None:
    found = replays([past(1, 1.0, 0.9), past(2, 1.0, 0.2), past(3, 0.0, 0.1), present(8, 0.0), present(9, 0.0)])
    assert list(found) == ["episode-0002"]


def test_a_task_that_always_succeeds_now_is_retired() -> None:
    assert not replays([past(1, 1.0), past(2, 0.0), present(8, 1.0), present(9, 1.0)])


def test_a_success_whose_log_probabilities_are_unknown_is_not_replayed() -> None:
    unknown = attempt(1, "take plate", score=1.0, task_id=HARD, adapter=OLD)
    half = attempt(2, "look", "take plate", score=1.0, task_id=HARD, adapter=OLD, log_probabilities=((-0.1,), ()))
    assert not replays([unknown, half, present(8, 0.0), present(9, 0.0)])


def test_a_replay_gives_a_group_of_failures_the_spread_that_it_lacks() -> None:
    found = OBJECTIVES["exgrpo"].examples([past(1, 1.0), present(7, 0.0), present(8, 0.0), present(9, 0.0)])
    assert [(example.replayed, round(example.weight, 2)) for example in found] == [
        (False, -0.5),
        (False, -0.5),
        (False, -0.5),
        (True, 1.5),
    ]


def test_without_a_present_group_a_replays_own_attempts_are_its_baseline() -> None:
    found = OBJECTIVES["exgrpo"].examples([past(1, 1.0), past(2, 0.0), present(9, 0.0, "twc/train/3")])
    assert [(example.trajectory.episode_id, example.replayed) for example in found] == [("episode-0001", True)]


def test_without_past_attempts_it_is_grpo() -> None:
    attempts = [present(8, 0.0), present(9, 1.0)]
    assert OBJECTIVES["exgrpo"].examples(attempts) == OBJECTIVES["grpo"].examples(attempts)


def test_correctness_is_that_of_a_tasks_latest_attempts() -> None:
    older = [past(1, 1.0), past(2, 1.0)]
    (now,), before = split(groups([*older, present(8, 0.0), present(9, 1.0)]))
    assert [one.correctness for one in experiences([now], before)] == [0.5]
    assert not experiences([], before)


def test_buckets_give_in_proportion_to_their_weights_and_the_lowest_entropy_first() -> None:
    candidates = [
        *(experience(f"half-{number}", 0.5, 1.0 - number / 10) for number in range(4)),
        *(experience(f"never-{number}", 0.0, number / 10) for number in range(4)),
    ]
    chosen = [one.trajectory.episode_id for one in select(candidates, 4)]
    assert chosen == ["half-3", "never-0", "half-2", "never-1"]
    assert select(candidates[::-1], 4) == select(candidates, 4)


def test_all_candidates_are_taken_where_there_are_no_more() -> None:
    assert len(select([experience("a", 0.5, 0.1), experience("b", 0.0, 0.1)], 9)) == 2
    assert select([], 9) == []


def test_as_many_groups_have_a_replay_as_there_are_present_groups() -> None:
    tasks = [f"twc/train/{number}" for number in range(10, 16)]
    older = [past(number, score, task_id=task) for task in tasks for number, score in ((1, 1.0), (2, 0.0))]
    older = [dataclasses.replace(one, episode_id=f"a-{one.task_id}-{one.episode_id}") for one in older]
    attempts = [*older, present(8, 0.0, tasks[0]), present(9, 1.0, tasks[0]), present(9, 0.0, tasks[1])]
    assert len(replays(attempts)) == 2


@pytest.fixture(scope="module")
def packer(tiny_base: Path) -> TreePacker:
    return TreePacker(ChatTokenizer(tiny_base), 2048)


@pytest.mark.parametrize("ratio", [0.01, 1.0, 3.0])
def test_a_replayed_token_counts_by_the_shaped_ratio_which_is_not_clipped(packer: TreePacker, ratio: float) -> None:
    objective = OBJECTIVES["exgrpo"]
    packed = objective.pack(Example(past(1, 1.0), 2.0, replayed=True), packer)
    tree = dataclasses.replace(packed, weights=torch.tensor([2.0]), sampled=torch.tensor([-5.0]))
    new = torch.tensor([-5.0 + math.log(ratio)], requires_grad=True)
    loss = objective.loss(tree, new, torch.zeros(1))
    loss.backward()
    assert loss.item() == pytest.approx(-2.0 * ratio / (ratio + 0.1), rel=1e-5)
    assert new.grad is not None
    assert -new.grad.item() == pytest.approx(2.0 * 0.1 * ratio / (ratio + 0.1) ** 2, rel=1e-4)


def test_tokens_of_the_present_policy_count_as_in_grpo(packer: TreePacker) -> None:
    example = Example(present(1, 0.0), -1.0)
    tree = OBJECTIVES["exgrpo"].pack(example, packer)
    assert not tree.replayed
    new, reference = torch.full((len(tree.targets),), -1.0), torch.full((len(tree.targets),), -1.5)
    ours = OBJECTIVES["exgrpo"].loss(tree, new, reference)
    assert ours == OBJECTIVES["grpo"].loss(OBJECTIVES["grpo"].pack(example, packer), new, reference)


def test_a_few_updates_make_a_replayed_success_likelier(packer: TreePacker, tiny_base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(
        tiny_base, dtype=torch.float32, attn_implementation=tree_attention.NAME
    )
    objective = OBJECTIVES["exgrpo"]
    (example,) = [one for one in objective.examples([past(1, 1.0), present(8, 0.0)]) if one.replayed]
    tree = objective.pack(example, packer)
    before = log_probabilities(model, tree).detach()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        (objective.loss(tree, log_probabilities(model, tree), before) / objective.size(tree)).backward()
        optimizer.step()
    assert log_probabilities(model, tree).sum() > before.sum()


def test_a_training_learns_from_present_failures_and_a_past_success(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trajectories = [past(1, 1.0), present(8, 0.0), present(9, 0.0)]
    snapshot = write_snapshot(trajectories, HoldoutSettings(selection=0.0, confirmation=0.0), tmp_path, 0, {})
    chosen = settings(Stage(objective="exgrpo", updates=4, trajectories=3))
    train(TrainingJob(base=tiny_base, snapshot=snapshot.folder, output=tmp_path / "output", settings=chosen))
    told = [Progress.model_validate_json(line) for line in capsys.readouterr().out.splitlines()]
    assert [one.objective for one in told] == ["exgrpo"] * 4
    assert told[-1].loss < told[0].loss
