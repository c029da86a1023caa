"""Objectives of preferences and of the policy's own rollouts: what is compared, which tokens count, what is learned."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from learners import tree_attention
from learners.chat import ChatTokenizer
from learners.comparisons import compared, parting
from learners.objectives import OBJECTIVES
from learners.objectives.objective import Example, Objective
from learners.objectives.preference_dpo import PreferenceDPO, by_response
from learners.objectives.preference_kto import MISMATCHED, PreferenceKTO
from learners.packed_tree import Tree
from learners.packing import TreePacker
from learners.scoring import Reference, log_probabilities
from learners.settings import Stage, TrainingJob
from learners.snapshots import read_trajectories, write_snapshot
from learners.trainer import train
from learners.trajectories import Branch, Trajectory
from ratchet_client.messages import Message, assistant, call, tool_result, user
from streams.errors import TrainingError
from streams.trust.holdout import HoldoutSettings
from tests.builders.trained import branch, settings, step
from tests.builders.trl_losses import trl_dpo, trl_kto

ERROR = "Error: unknown action."
SUCCESS = Trajectory(
    episode_id="a",
    task_id="t",
    opening=(user("Put the things away."),),
    steps=(step("open fridge", "It is open."), step("take plate", "Taken."), step("clean plate", "Clean.")),
    branches=(branch(0, "dance", ERROR), branch(0, "look", "A kitchen."), branch(1, "fly to the moon", "It is open.")),
    actor_kind="policy",
)
FAILURE = replace(
    SUCCESS,
    episode_id="b",
    steps=(SUCCESS.steps[0], step("eat plate", "It breaks."), step("give up", "")),
    branches=(),
    origin="practice",
    success=False,
    score=0.0,
)


@pytest.fixture(scope="module")
def packer(tiny_base: Path) -> TreePacker:
    return TreePacker(ChatTokenizer(tiny_base), 2048)


@pytest.fixture
def model(tiny_base: Path) -> PreTrainedModel:
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        tiny_base, dtype=torch.float32, attn_implementation=tree_attention.NAME
    )
    return loaded


def only(objective: Objective, *trajectories: Trajectory) -> Example:
    (example,) = objective.examples(trajectories)
    return example


def said(tiny_base: Path, *texts: str) -> list[list[int]]:
    return [ChatTokenizer(tiny_base).encode(f"{text}<|im_end|>") for text in texts]


def responses(tree: Tree) -> list[list[int]]:
    return [tree.ids[tree.targets[tree.responses == number]].tolist() for number in tree.responses.unique()]


def test_compared_are_errors_and_what_changed_nothing_and_not_what_may_be_as_good() -> None:
    (found,) = compared([SUCCESS])
    assert [one.action.text for one in found.branches] == ["dance", "fly to the moon"]


@pytest.mark.parametrize(
    ("observation", "worse"),
    [
        (user("  "), True),
        (Message(role="tool", tool_call_id="a", content="No such place.", is_error=True), True),
        (tool_result('{"error": "no such place"}', "a"), True),
        (tool_result('{"error": null, "place": 1}', "a"), False),
        (user("Errors are what this page is about."), False),
        (user("There was no error."), False),
    ],
)
def test_an_outcome_is_an_error_where_it_says_so(observation: Message, worse: bool) -> None:
    alternative = Branch(0, assistant("dance"), (observation,), "policy", "sandbox_exact")
    assert bool(compared([replace(SUCCESS, branches=(alternative,))])) is worse


@pytest.mark.parametrize(("score", "done", "worse"), [(0.5, True, True), (1.0, True, False), (0.5, False, False)])
def test_an_end_with_a_lower_score_is_worse(score: float, done: bool, worse: bool) -> None:
    alternative = replace(branch(0, "leave", "You have left."), score=score, done=done)
    assert bool(compared([replace(SUCCESS, branches=(alternative,))])) is worse


def test_what_a_failure_did_where_it_parts_from_a_success_is_compared_once() -> None:
    bare = replace(SUCCESS, branches=())
    (found,) = compared([bare, FAILURE, replace(FAILURE, episode_id="c"), replace(FAILURE, task_id="other")])
    assert [(one.step, one.action.text) for one in found.branches] == [(1, "eat plate")]
    assert not compared([bare, replace(FAILURE, task_id="other")])


def test_what_was_done_before_a_recovery_is_not_preferred() -> None:
    assert not compared([replace(SUCCESS, learn_from=2), FAILURE])


def test_episodes_do_not_part_where_the_environment_answered_differently_first() -> None:
    other = replace(FAILURE, steps=(step("open fridge", "It is locked."), *FAILURE.steps[1:]))
    assert parting(SUCCESS, other) is None
    assert parting(SUCCESS, replace(SUCCESS, steps=SUCCESS.steps[:1])) is None
    assert parting(SUCCESS, replace(FAILURE, opening=(user("Another task."),))) is None


def test_ids_of_calls_do_not_part_episodes() -> None:
    def episode(identity: str, then: str) -> Trajectory:
        asked = assistant(None, call("search", "{}", identity))
        return replace(SUCCESS, steps=(step(asked, tool_result("None.", identity)), step(then, "Yes.")))

    assert parting(episode("x", "stop"), episode("y", "go on")) == 1
    assert parting(episode("x", "stop"), episode("y", "stop")) is None


def test_scores_of_branches_are_kept_in_a_snapshot(tmp_path: Path) -> None:
    scored = replace(
        SUCCESS, branches=(replace(branch(0, "leave", "Left."), score=0.5, done=True), SUCCESS.branches[0])
    )
    snapshot = write_snapshot([scored], HoldoutSettings(selection=0.0, confirmation=0.0), tmp_path, 0, {})
    assert read_trajectories(snapshot.folder)[0].branches == scored.branches


@pytest.mark.slow
def test_dpo_counts_the_rejected_replies_and_then_the_trusted_one(packer: TreePacker, tiny_base: Path) -> None:
    objective = PreferenceDPO()
    example = only(objective, replace(SUCCESS, branches=(*SUCCESS.branches, branch(0, "sing", ERROR))))
    tree = objective.pack(example, packer)
    texts = ("dance", "sing", "open fridge", "fly to the moon", "take plate")
    assert responses(tree) == said(tiny_base, *texts)
    weights = by_response(tree, torch.zeros(len(tree.targets)))[1].tolist()
    assert weights == [-1, -1, 1, -1, 1]
    assert objective.size(tree) == 3


def test_dpo_counts_nothing_of_a_pair_that_does_not_fit(tiny_base: Path) -> None:
    objective = PreferenceDPO()
    tree = objective.pack(only(objective, SUCCESS), TreePacker(ChatTokenizer(tiny_base), 1))
    assert objective.size(tree) == 0
    assert tree.targets.numel() == 0


@pytest.mark.nightly
def test_kto_counts_each_reply_and_mismatched_ones(packer: TreePacker, tiny_base: Path) -> None:
    objective = PreferenceKTO()
    liked, disliked = objective.examples([SUCCESS, FAILURE])
    tree = objective.pack(liked, packer)
    texts = ["open fridge", "take plate", "clean plate", "dance", "fly to the moon"]
    assert responses(tree) == said(tiny_base, *texts, "take plate", "clean plate", "open fridge")
    weights = by_response(tree, torch.zeros(len(tree.targets)))[1].tolist()
    assert weights == [1, 1, 1, -1, -1, MISMATCHED, MISMATCHED, MISMATCHED]
    assert objective.size(tree) == 5
    bad = objective.pack(disliked, packer)
    assert by_response(bad, torch.zeros(len(bad.targets)))[1].tolist()[:3] == [-1, -1, -1]


def test_kto_learns_nothing_where_nothing_is_undesirable() -> None:
    assert not PreferenceKTO().examples([replace(SUCCESS, branches=())])


def test_rejection_sampling_weighs_each_task_the_same() -> None:
    easy = [replace(SUCCESS, episode_id=str(number)) for number in range(3)]
    expert = replace(SUCCESS, actor_kind="expert")
    found = OBJECTIVES["rejection_sampling"].examples([*easy, replace(SUCCESS, task_id="hard"), FAILURE, expert])
    assert [one.weight for one in found] == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])


def test_the_weight_of_a_task_is_not_divided_out_of_an_update(packer: TreePacker) -> None:
    objective = OBJECTIVES["rejection_sampling"]
    one, two = (objective.pack(Example(SUCCESS, weight), packer) for weight in (1.0, 2.0))
    values = torch.full((len(one.targets),), -1.0)
    assert objective.loss(two, values, None) / objective.size(two) == pytest.approx(2.0)
    assert objective.loss(one, values, None) / objective.size(one) == pytest.approx(1.0)


@pytest.mark.nightly
def test_echo_counts_actions_of_successes_and_all_observations(packer: TreePacker, tiny_base: Path) -> None:
    objective = OBJECTIVES["echo"]
    good, bad = (objective.pack(one, packer) for one in objective.examples([SUCCESS, FAILURE]))
    texts = ("open fridge", "It is open.", "take plate", "Taken.", "clean plate", "Clean.")
    assert responses(good) == said(tiny_base, *texts)
    assert by_response(good, torch.zeros(len(good.targets)))[1].tolist() == pytest.approx([1, 0.1] * 3)
    assert responses(bad)[:2] == said(tiny_base, "It is open.", "It breaks.")


def sums(tree: Tree, values: torch.Tensor) -> list[torch.Tensor]:
    """The values of each response."""
    return [values[tree.responses == number] for number in tree.responses.unique()]


@pytest.mark.parametrize(("loss_type", "smoothing"), [("sigmoid", 0.0), ("ipo", 0.0)])
def test_dpo_is_that_of_trl(packer: TreePacker, loss_type: str, smoothing: float) -> None:
    objective = PreferenceDPO(0.3, smoothing, loss_type)  # type: ignore[arg-type]  # one of both
    tree = objective.pack(
        only(objective, replace(SUCCESS, branches=(*SUCCESS.branches, branch(0, "x", ERROR)))), packer
    )
    generator = torch.Generator().manual_seed(0)
    policy, reference = (-torch.rand(len(tree.targets), generator=generator) * 5 for _ in range(2))
    policy.requires_grad_()
    ours = objective.loss(tree, policy, reference) / objective.size(tree)
    mine, theirs = sums(tree, policy), sums(tree, reference)
    pairs = [(2, 0), (2, 1), (4, 3)]
    expected = trl_dpo(
        [mine[good] for good, _ in pairs],
        [mine[bad] for _, bad in pairs],
        torch.stack([theirs[good].sum() for good, _ in pairs]),
        torch.stack([theirs[bad].sum() for _, bad in pairs]),
        beta=0.3,
        loss_type=loss_type,
        label_smoothing=smoothing,
    )
    assert ours.item() == pytest.approx(expected.item(), abs=1e-5)
    gradient, of_trl = (torch.autograd.grad(each, policy, retain_graph=True)[0] for each in (ours, expected))
    assert torch.allclose(gradient, of_trl, atol=1e-5)


@pytest.mark.parametrize("shift", [-2.0, 2.0])
def test_kto_is_that_of_trl_whatever_the_sign_of_the_reference_point(packer: TreePacker, shift: float) -> None:
    objective = PreferenceKTO(0.3, 1.5, 0.7)
    tree = objective.pack(only(objective, SUCCESS), packer)
    generator = torch.Generator().manual_seed(0)
    policy, reference = (-torch.rand(len(tree.targets), generator=generator) * 5 for _ in range(2))
    reference = reference - shift * (tree.weights == MISMATCHED)
    policy.requires_grad_()
    ours = objective.loss(tree, policy, reference) / objective.size(tree)
    mine, theirs = sums(tree, policy), sums(tree, reference)
    expected = trl_kto(
        mine[:5],
        [True, True, True, False, False],
        torch.stack([each.sum() for each in theirs[:5]]),
        torch.stack([each.sum() for each in mine[5:]]),
        torch.stack([each.sum() for each in theirs[5:]]),
        beta=0.3,
        weights=(1.5, 0.7),
    )
    assert ours.item() == pytest.approx(expected.item(), abs=1e-5)
    gradient, of_trl = (torch.autograd.grad(each, policy, retain_graph=True)[0] for each in (ours, expected))
    assert torch.allclose(gradient, of_trl, atol=1e-5)


@pytest.mark.parametrize("objective", [PreferenceDPO(), PreferenceDPO(loss_type="ipo"), PreferenceKTO()])
def test_a_few_updates_raise_what_is_preferred_above_what_is_not(
    objective: Objective, packer: TreePacker, model: PreTrainedModel
) -> None:
    tree = objective.pack(only(objective, SUCCESS), packer)
    parameters = list(model.parameters())
    reference = Reference(model, parameters)
    optimizer = torch.optim.SGD(parameters, lr=0.05)

    def margin() -> float:
        with torch.no_grad():
            ratios, weights, _ = by_response(tree, log_probabilities(model, tree) - reference.log_probabilities(tree))
        return float(ratios[weights > MISMATCHED].mean() - ratios[weights < 0].mean())

    before = margin()
    for _ in range(5):
        expected = reference.log_probabilities(tree)
        (objective.loss(tree, log_probabilities(model, tree), expected) / objective.size(tree)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert before == pytest.approx(0.0, abs=1e-4)
    assert margin() > before + 0.01


def trained(tiny_base: Path, folder: Path, *stages: Stage, max_length: int = 2048) -> None:
    nothing_held_out = HoldoutSettings(selection=0.0, confirmation=0.0)
    snapshot = write_snapshot([SUCCESS, replace(SUCCESS, episode_id="c")], nothing_held_out, folder, 0, {})
    chosen = settings(*stages).model_copy(update={"max_length": max_length})
    train(TrainingJob(base=tiny_base, snapshot=snapshot.folder, output=folder / "output", settings=chosen))


@pytest.mark.parametrize("name", ["preference_dpo", "preference_kto", "rejection_sampling", "echo"])
def test_each_is_trained_by_a_stage_of_its_own(
    name: str, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tiny_base, tmp_path, Stage.model_validate({"objective": name, "updates": 6}))
    losses = [json.loads(line)["loss"] for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    assert (tmp_path / "output" / "adapter_model.safetensors").exists()


def test_pairs_of_which_none_fits_are_an_error_that_says_what_to_raise(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"raise learner\.max_length"):
        trained(tiny_base, tmp_path, Stage(objective="preference_dpo", updates=1), max_length=64)
