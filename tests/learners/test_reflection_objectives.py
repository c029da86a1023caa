"""The objectives `reflection` and `inverse_dynamics`: what counts, in which form, and that it is learned."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from learners.chat import ChatTokenizer
from learners.objectives import OBJECTIVES
from learners.objectives.objective import Example
from learners.objectives.reflection import GROUNDED, MODEL
from learners.packing import TreePacker
from learners.reflections.records import read_reflections, write_reflections
from learners.reflections.states import reflected_states
from learners.settings import REFLECTIONS, TRAINING_REPORT, Progress, Stage, TrainingJob
from learners.settings import TrainingReport as Report
from learners.snapshots import write_snapshot
from learners.trainer import train
from learners.trajectories import LESSON, Rationale
from streams.environments.harness import ChatHarness
from streams.errors import TrainingError
from streams.trust.holdout import HoldoutSettings
from tests.builders.reflected import BOOKING, GOOD, KITCHEN, written
from tests.builders.trained import settings, tool, trajectory

NOTHING_HELD_OUT = HoldoutSettings(selection=0.0, confirmation=0.0)
REASON = "Food spoils."


def counted(name: str, example: Example, packer: TreePacker, tokenizer: ChatTokenizer) -> str:
    tree = OBJECTIVES[name].pack(example, packer)
    assert set(tree.weights.tolist()) == {1.0}
    return str(tokenizer.tokenizer.decode(tree.ids[tree.targets].tolist()))


def test_a_rationale_and_its_action_count_beside_the_actions_and_nothing_else(tiny_base: Path) -> None:
    tokenizer = ChatTokenizer(tiny_base)
    with_reason = replace(KITCHEN, rationales=(Rationale(0, REASON, GROUNDED), Rationale(1, "A lesson.", LESSON)))
    (example,) = OBJECTIVES["reflection"].examples([with_reason])
    said = counted("reflection", example, TreePacker(tokenizer, 2048), tokenizer)
    assert said == "open fridge<|im_end|>take plate<|im_end|>Food spoils.\nopen fridge<|im_end|>"


def test_trusted_steps_without_a_rationale_are_imitated_in_the_same_pass() -> None:
    reasoned = replace(KITCHEN, rationales=(Rationale(0, REASON, MODEL),))
    failed = replace(reasoned, success=False)
    assert [one.trajectory for one in OBJECTIVES["reflection"].examples([KITCHEN, failed, reasoned])] == [
        KITCHEN,
        reasoned,
    ]
    lesson = replace(KITCHEN, rationales=(Rationale(0, REASON, LESSON),))
    assert not OBJECTIVES["reflection"].examples([KITCHEN, failed, lesson])


def test_before_a_call_a_rationale_is_content_that_is_read_back_with_the_call(
    tokenizers: Callable[[str], ChatTokenizer],
) -> None:
    tokenizer = tokenizers("qwen2_5")
    offered = replace(
        BOOKING,
        steps=(BOOKING.steps[0].model_copy(update={"tools": (tool("book", "city"),)}), BOOKING.steps[1]),
        rationales=(Rationale(0, REASON, MODEL),),
    )
    packing = TreePacker(tokenizer, 2048).begin(offered)
    packing.add_rationale(offered.rationales[0], 1.0)
    tree = packing.tree()
    said = str(tokenizer.tokenizer.decode(tree.ids[tree.targets[:-1]].tolist()))
    read = ChatHarness(reply="message").parse(tokenizer.reply_format.parse(said))
    assert read.text == "Food spoils.\nSure."
    assert [json.loads(each.function.arguments) for each in read.calls if each.function] == [{"city": "Rome"}]


def test_where_the_template_writes_reasoning_a_rationale_is_reasoning(
    tokenizers: Callable[[str], ChatTokenizer],
) -> None:
    tokenizer = tokenizers("qwen3")
    packing = TreePacker(tokenizer, 2048, reasoning=True).begin(KITCHEN)
    packing.add_rationale(Rationale(0, REASON, MODEL), 1.0)
    tree = packing.tree()
    read = tokenizer.reply_format.parse(str(tokenizer.tokenizer.decode(tree.ids[tree.targets[:-1]].tolist())))
    assert (read.reasoning_content, read.text) == (REASON, "open fridge")


def test_a_rationale_of_a_mistake_is_not_learned(tiny_base: Path) -> None:
    packing = TreePacker(ChatTokenizer(tiny_base), 2048).begin(replace(KITCHEN, learn_from=1))
    assert packing.add_rationale(Rationale(0, REASON, MODEL), 1.0) is None
    assert packing.add_rationale(Rationale(7, REASON, MODEL), 1.0) is None


def test_inverse_dynamics_tells_the_actions_under_a_question_of_its_own(tiny_base: Path) -> None:
    tokenizer = ChatTokenizer(tiny_base)
    examples = OBJECTIVES["inverse_dynamics"].examples([KITCHEN])
    told = [counted("inverse_dynamics", each, TreePacker(tokenizer, 2048), tokenizer) for each in examples]
    wanted = ["open fridge", "sing", "Open fridge.", "take plate", "take milk"]
    assert told == [f"{action}<|im_end|>" for action in wanted]
    system, asked = examples[3].trajectory.opening
    assert system.text != KITCHEN.opening[0].text
    assert "assistant: open fridge" in asked.text
    assert "take plate" not in asked.text
    assert asked.text.endswith("user: You take the plate out of the fridge and hold it in your left hand now.")


def test_inverse_dynamics_tells_calls_as_texts() -> None:
    first = OBJECTIVES["inverse_dynamics"].examples([BOOKING])[0].trajectory.steps[0].action
    assert not first.calls
    assert '"arguments":"{\\"city\\":\\"Rome\\"}"' in first.text


def test_kept_rationales_are_learned_and_dropped_ones_are_beside_the_adapter(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot = write_snapshot([trajectory(1), trajectory(2)], NOTHING_HELD_OUT, tmp_path, 0, {})
    found = write_reflections(tmp_path / "written.jsonl", [written(1), written(2, "leak", "The expert.")])
    stages = (Stage(objective="reflection", updates=8), Stage(objective="inverse_dynamics", updates=4))
    job = TrainingJob(
        base=tiny_base,
        snapshot=snapshot.folder,
        output=tmp_path / "output",
        reflections=found.path,
        reflections_sha256=found.sha256,
        settings=settings(*stages),
    )
    train(job)
    told = [Progress.model_validate_json(line) for line in capsys.readouterr().out.splitlines()]
    losses = [one.loss for one in told if one.objective == "reflection"]
    assert losses[-1] < losses[0]
    assert [one.objective for one in told[8:]] == ["inverse_dynamics"] * 4
    report = Report.model_validate_json((job.output / TRAINING_REPORT).read_bytes())
    assert report.reflections == found.counts == {"grounded/kept": 1, "model/leak": 1}
    beside = read_reflections(job.output / REFLECTIONS)
    assert [(one.text, one.dropped) for one in beside] == [(GOOD, ""), ("The expert.", "leak")]


def test_a_training_is_another_one_with_other_rationales_and_refuses_changed_ones(
    tiny_base: Path, tmp_path: Path
) -> None:
    snapshot = write_snapshot([trajectory(1)], NOTHING_HELD_OUT, tmp_path, 0, {})
    found = write_reflections(tmp_path / "written.jsonl", [written(1)])
    job = TrainingJob(
        base=tiny_base,
        snapshot=snapshot.folder,
        output=tmp_path / "output",
        reflections=found.path,
        reflections_sha256=found.sha256,
        settings=settings(Stage(objective="reflection", updates=1)),
    )
    other = write_reflections(found.path, [written(1, text=f"{GOOD} Indeed.")])
    assert job.model_copy(update={"reflections_sha256": other.sha256}).job_id != job.job_id
    with pytest.raises(TrainingError, match="have changed since"):
        train(job)


def test_a_snapshot_without_branches_is_an_error_that_says_what_is_missing(tiny_base: Path, tmp_path: Path) -> None:
    bare = replace(trajectory(1), branches=())
    assert not reflected_states([bare], 3, 100, 0)
    snapshot = write_snapshot([bare], NOTHING_HELD_OUT, tmp_path, 0, {})
    job = TrainingJob(
        base=tiny_base,
        snapshot=snapshot.folder,
        output=tmp_path / "output",
        settings=settings(Stage(objective="reflection", updates=1)),
    )
    with pytest.raises(TrainingError, match="holds nothing that reflection could learn from: leave it out"):
        train(job)
