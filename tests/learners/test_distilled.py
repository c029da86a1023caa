"""The objectives `erl`, `mel` and `self_distillation`: their examples, what counts, and that they are learned."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from learners import tree_attention
from learners.chat import ChatTokenizer
from learners.comparisons import parting
from learners.objectives import OBJECTIVES
from learners.objectives.objective import Example
from learners.packing import TreePacker
from learners.scoring import log_probabilities
from learners.settings import Progress, Stage, TrainingJob
from learners.snapshots import write_snapshot
from learners.trainer import train
from learners.trajectories import INSTRUCTED, LESSON, REFLECTED, Rationale, Trajectory
from ratchet_client.messages import assistant
from streams.trust.holdout import HoldoutSettings
from tests.builders.trained import attempt, settings

NOTHING_HELD_OUT = HoldoutSettings(selection=0.0, confirmation=0.0)
REFLECTION = replace(attempt(3, "open fridge", "take plate", score=1.0), actor_kind=REFLECTED)
INSTRUCTION = replace(
    attempt(4, "open fridge", "take plate", score=1.0),
    actor_kind=INSTRUCTED,
    rationales=(Rationale(1, "Plates are cold.", LESSON), Rationale(0, "It is a fridge.", "model")),
)
FAILURE = attempt(1, "sing", score=0.0)


@pytest.fixture(scope="module")
def packer(tiny_base: Path) -> TreePacker:
    return TreePacker(ChatTokenizer(tiny_base), 2048)


def chosen(name: str, trajectories: list[Trajectory]) -> list[str]:
    return [example.trajectory.episode_id for example in OBJECTIVES[name].examples(trajectories)]


def counted(name: str, example: Example, packer: TreePacker, base: Path) -> str:
    tree = OBJECTIVES[name].pack(example, packer)
    return str(ChatTokenizer(base).tokenizer.decode(tree.ids[tree.targets].tolist()))


def test_erl_learns_second_attempts_that_succeeded_and_nothing_else() -> None:
    failed = replace(FAILURE, actor_kind=REFLECTED)
    assert chosen("erl", [FAILURE, failed, attempt(2, "look", score=1.0), REFLECTION, INSTRUCTION]) == ["episode-0003"]


def test_erl_counts_the_actions(packer: TreePacker, tiny_base: Path) -> None:
    assert counted("erl", Example(REFLECTION), packer, tiny_base) == "open fridge<|im_end|>take plate<|im_end|>"


@pytest.mark.slow
def test_mel_learns_the_lesson_and_the_attempt_that_it_led_to(packer: TreePacker, tiny_base: Path) -> None:
    attempted, lesson = OBJECTIVES["mel"].examples([FAILURE, REFLECTION, INSTRUCTION])
    assert attempted.trajectory is INSTRUCTION
    assert counted("mel", attempted, packer, tiny_base) == "open fridge<|im_end|>take plate<|im_end|>"
    assert counted("mel", lesson, packer, tiny_base) == "Plates are cold.<|im_end|>"


def test_a_lesson_answers_a_question_about_the_state_where_the_attempts_part() -> None:
    _, lesson = OBJECTIVES["mel"].examples([INSTRUCTION])
    system, question = lesson.trajectory.opening
    assert system.text != INSTRUCTION.opening[0].text
    assert question.text.endswith("assistant: open fridge\nuser: Done.")
    assert "Plates" not in question.text


def test_attempts_with_advice_are_no_members_of_a_group_of_grpo() -> None:
    assert not OBJECTIVES["grpo"].examples([FAILURE, REFLECTION, INSTRUCTION])


def test_self_distillation_learns_the_best_success_of_each_task() -> None:
    attempts = [
        FAILURE,
        attempt(2, "look", "look", "take plate", score=1.0),
        attempt(5, "take plate", score=1.0),
        attempt(6, "look", "take plate", score=1.0),
        attempt(7, "take cup", score=1.0, task_id="twc/train/1"),
        attempt(8, "sing", score=0.0, task_id="twc/train/1"),
    ]
    assert chosen("self_distillation", attempts) == ["episode-0005", "episode-0007"]


def test_self_distillation_learns_a_success_after_a_reflection() -> None:
    assert chosen("self_distillation", [FAILURE, REFLECTION]) == ["episode-0003"]


@pytest.mark.parametrize(
    "attempts",
    [
        [attempt(1, "take plate", score=1.0), attempt(2, "take plate", score=1.0)],
        [FAILURE, attempt(2, "sing", score=0.5)],
        [FAILURE, attempt(2, assistant(""), score=1.0)],
        [FAILURE, replace(attempt(2, "take plate", score=1.0), origin="production")],
        [FAILURE, INSTRUCTION],
    ],
    ids=["all succeed", "none succeeds", "nothing to imitate", "not practised", "another objective's"],
)
def test_self_distillation_learns_nothing_where_the_slower_configuration_is_no_better(
    attempts: list[Trajectory],
) -> None:
    assert not chosen("self_distillation", attempts)


DISTILLED = {
    "erl": [FAILURE, REFLECTION],
    "mel": [FAILURE, INSTRUCTION],
    "self_distillation": [FAILURE, attempt(2, "take plate", score=1.0)],
}


@pytest.mark.parametrize("name", DISTILLED)
def test_a_few_updates_make_what_succeeded_likelier(name: str, packer: TreePacker, tiny_base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(
        tiny_base, dtype=torch.float32, attn_implementation=tree_attention.NAME
    )
    objective = OBJECTIVES[name]
    trees = [objective.pack(example, packer) for example in objective.examples(DISTILLED[name])]
    before = [log_probabilities(model, tree).sum().item() for tree in trees]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        size = sum(map(objective.size, trees))
        for tree in trees:
            (objective.loss(tree, log_probabilities(model, tree), None) / size).backward()
        optimizer.step()
    for tree, earlier in zip(trees, before, strict=True):
        assert log_probabilities(model, tree).sum().item() > earlier


@pytest.mark.slow
def test_a_training_learns_from_what_succeeded_stage_by_stage(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trajectories = [FAILURE, attempt(2, "take plate", score=1.0), REFLECTION, INSTRUCTION]
    snapshot = write_snapshot(trajectories, NOTHING_HELD_OUT, tmp_path, 0, {})
    stages = [Stage.model_validate({"objective": name, "updates": 4}) for name in DISTILLED]
    train(TrainingJob(base=tiny_base, snapshot=snapshot.folder, output=tmp_path / "output", settings=settings(*stages)))
    told = [Progress.model_validate_json(line) for line in capsys.readouterr().out.splitlines()]
    for name in DISTILLED:
        losses = [one.loss for one in told if one.objective == name]
        assert len(losses) == 4
        assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("success", "failure", "step"),
    [
        (("look", "take plate"), ("Look.", "sing"), 1),
        (("take plate",), ("sing", "sing"), 0),
        (("look",), ("look", "sing"), None),
    ],
)
def test_two_attempts_part_where_they_act_otherwise(
    success: tuple[str, ...], failure: tuple[str, ...], step: int | None
) -> None:
    assert parting(attempt(1, *success, score=1.0), attempt(2, *failure, score=0.0)) == step


def test_attempts_at_other_tasks_or_in_other_states_do_not_part() -> None:
    success, failure = attempt(1, "look", "take plate", score=1.0), attempt(2, "look", "sing", score=0.0)
    other = failure.steps[0].model_copy(update={"observation": success.opening[1:]})
    assert parting(success, replace(failure, opening=failure.opening[:1])) is None
    assert parting(success, replace(failure, steps=(other, failure.steps[1]))) is None
