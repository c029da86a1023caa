"""The pinned tasks: what counts as a new failure, and what follows when some could not be played."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluation.gates.gate import Evidence, TaskLists
from evaluation.gates.golden import Golden
from evaluation.gates.verdict import Verdict
from evaluation.rollouts import Rollout
from evaluation.settings import GateSettings, GoldenSettings
from ratchet_client.errors import ConfigurationError
from ratchet_client.events import Task
from tests.builders.trials import CANDIDATE, CHAMPION, RecordedArena, evidence, rollout, tasks

SETTINGS = GateSettings(golden=GoldenSettings(tasks=("twc/train/0", "twc/train/1")))


def trial(results: Callable[[Task, str, int], bool], count: int = 4) -> Evidence:
    """`results` are told the task, who plays it, and how often he has before."""
    plays: Counter[tuple[str, str]] = Counter()

    def play(task: Task, model: str) -> Rollout:
        plays[task.task_id, model] += 1
        return rollout(task, results(task, model, plays[task.task_id, model] - 1))

    made = evidence(results=play)
    made.tasks = TaskLists(selection=(), golden=tuple(tasks(count)))
    return made


@pytest.mark.parametrize("verdict", [Verdict.HOLD, Verdict.REJECT])
async def test_a_new_failure_is_named_and_stops_the_candidate(verdict: Verdict) -> None:
    made = trial(lambda task, model, _: model == CHAMPION.served or task.seed != 2)
    settings = SETTINGS.model_copy(update={"golden": SETTINGS.golden.model_copy(update={"verdict": verdict.value})})
    result = await Golden(settings).judge(made)
    assert result.verdict is verdict
    assert "newly fails 1 of 4 golden tasks: twc/train/2." in result.reason
    assert result.figures == {"tasks": 4, "new_failures": 1, "lost_once": 0}


async def test_only_what_was_lost_is_played_again_and_luck_decides_nothing() -> None:
    made = trial(lambda task, model, before: model == CHAMPION.served or task.seed != 2 or before > 0)
    result = await Golden(SETTINGS).judge(made)
    assert result.verdict is Verdict.PROMOTE
    assert "1 were lost once and not again" in result.reason
    assert isinstance(made.arena, RecordedArena)
    assert Counter(made.arena.asked) == Counter(
        {(CHAMPION.served, 4): 1, (CANDIDATE.served, 4): 1, (CHAMPION.served, 1): 1, (CANDIDATE.served, 1): 1}
    )


async def test_a_champion_that_fails_the_second_time_is_no_measure() -> None:
    made = trial(lambda task, model, before: model == CHAMPION.served and before == 0)
    assert (await Golden(SETTINGS).judge(made)).verdict is Verdict.PROMOTE


async def test_what_the_champion_fails_too_is_no_new_failure() -> None:
    assert (await Golden(SETTINGS).judge(trial(lambda task, model, _: False))).verdict is Verdict.PROMOTE


async def test_without_pinned_tasks_there_is_nothing_to_judge_and_missing_ones_are_not_passed_over() -> None:
    nothing = trial(lambda task, model, _: True, count=0)
    result = await Golden(GateSettings()).judge(nothing)
    assert (result.verdict, result.reason) == (Verdict.PROMOTE, "No golden tasks are pinned (gate.golden.tasks).")
    assert (await Golden(SETTINGS).judge(nothing)).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("model", [CHAMPION.served, CANDIDATE.served])
async def test_a_task_that_one_side_could_not_play_makes_it_inconclusive(model: str) -> None:
    made = evidence(results=lambda task, served: None if (task.seed, served) == (0, model) else rollout(task, True))
    made.tasks = TaskLists(selection=(), golden=tuple(tasks(4)))
    result = await Golden(SETTINGS).judge(made)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "1 of 4 golden tasks could not be played: twc/train/0" in result.reason


def test_the_pinned_tasks_are_those_of_the_settings_and_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "golden.txt"
    file.write_text("# the board's\norders/1\n\norders/2  # twice a year\norders/0\n")
    settings = GoldenSettings(tasks=("orders/0",), file=file).with_file()
    assert settings == GoldenSettings(tasks=("orders/0", "orders/1", "orders/2"))
    assert settings.with_file() == settings
    with pytest.raises(ConfigurationError, match=r"cannot be read: .*gone\.txt.*gate\.golden\.file"):
        GoldenSettings(file=tmp_path / "gone.txt").with_file()
    with pytest.raises(ValueError, match="named twice"):
        GoldenSettings(tasks=("a", "a"))


def test_a_file_that_an_editor_began_with_a_mark_has_the_same_ids(tmp_path: Path) -> None:
    file = tmp_path / "golden.txt"
    file.write_text("orders/1\norders/2\n", encoding="utf-8-sig")
    assert GoldenSettings(file=file).with_file().tasks == ("orders/1", "orders/2")
