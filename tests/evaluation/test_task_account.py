"""How often gates played each held-out task, and which the next trial is given."""

import math
from collections.abc import Iterable
from datetime import UTC, datetime

import pytest

from evaluation.agreement import overstatement
from evaluation.gates.gate import TaskLists
from evaluation.settings import TaskListSettings
from evaluation.task_account import ListName, TaskAccount, TasksUsed, TrialBegun, draw
from ratchet_client.events import Task, family
from streams.trust.holdout import HoldoutSettings, Split

NOW = datetime(2026, 11, 1, tzinfo=UTC)
HOLDOUT = HoldoutSettings()
TASKS = [Task(environment="shop", task_id=f"orders/{n}") for n in range(600)]
SETTINGS = TaskListSettings(rotate_after=3, selection_tasks=60)


def begun(trial: str, generation: int = 1, promotions: int = 0, **counts: int) -> TrialBegun:
    given = {"selection": 60, "confirmation": 50, "fresh": 50, "rotate_after": 3, **counts}
    return TrialBegun(trial=trial, adapter="a" * 64, generation=generation, promotions=promotions, at=NOW, **given)


def used(trial: str, tasks: Iterable[Task | str], name: ListName = ListName.SELECTION) -> TasksUsed:
    ids = tuple(task if isinstance(task, str) else task.task_id for task in tasks)
    return TasksUsed(trial=trial, gate="improvement", list=name, tasks=ids, at=NOW)


def lists(
    account: TaskAccount, trial: str, generation: int = 1, tasks: list[Task] = TASKS, **settings: int
) -> TaskLists:
    return draw(account, trial, generation, tasks, (), HOLDOUT, SETTINGS.model_copy(update=settings))


def ids(tasks: Iterable[Task]) -> list[str]:
    return [task.task_id for task in tasks]


def test_each_list_has_tasks_of_its_split_only() -> None:
    drawn = lists(TaskAccount(), "one")
    assert len(drawn.selection) == 60
    assert {HOLDOUT.split(each) for each in ids(drawn.selection)} == {Split.SELECTION}
    assert {HOLDOUT.split(each) for each in ids(drawn.confirmation)} == {Split.CONFIRMATION}
    assert drawn.unplayed() == {*ids(drawn.selection), *ids(drawn.confirmation)}
    assert drawn.played == 0


def test_golden_tasks_are_in_no_other_list() -> None:
    holdout = HOLDOUT.model_copy(update={"pinned": frozenset({"orders/0", "orders/1", "orders/2"})})
    drawn = draw(
        TaskAccount(), "one", 1, TASKS, TASKS[:3], holdout, SETTINGS.model_copy(update={"selection_tasks": 999})
    )
    assert drawn.golden == tuple(TASKS[:3])
    assert not {*ids(drawn.selection), *ids(drawn.confirmation)} & {"orders/0", "orders/1", "orders/2"}


def test_the_order_is_keyed_and_another_trial_has_another() -> None:
    first, again, other = (lists(TaskAccount(), trial) for trial in ("one", "one", "two"))
    assert first == again
    assert ids(first.confirmation) != ids(other.confirmation)
    assert ids(draw(TaskAccount(), "one", 1, TASKS, (), HoldoutSettings(key="another"), SETTINGS).selection) != ids(
        first.selection
    )
    # Nor does it depend on the order in which an environment lists them.
    assert lists(TaskAccount(), "one", tasks=TASKS[::-1]) == first


def test_tasks_that_no_trial_played_come_first_and_the_list_has_no_others_while_there_are_enough() -> None:
    first = lists(TaskAccount(), "one")
    account = TaskAccount.of([begun("one"), used("one", first.selection[:40])])
    second = lists(account, "two")
    assert not {*ids(first.selection[:40])} & {*ids(second.selection)}
    assert second.played == 0
    everything = [task for task in TASKS if HOLDOUT.split(task.task_id) is Split.SELECTION]
    worn = TaskAccount.of([begun("one"), used("one", everything[20:])])
    short = lists(worn, "two")
    assert {*ids(short.selection[:20])} == {*ids(everything[:20])}
    assert len(short.selection) == 60
    assert (short.played, len(short.unplayed() & {*ids(short.selection)})) == (1, 20)


def test_a_list_that_is_used_stays_within_a_generation_and_rotates_with_the_next() -> None:
    everything = [task for task in TASKS if HOLDOUT.split(task.task_id) is Split.SELECTION]
    entries: list[TrialBegun | TasksUsed] = [begun("zero", 1), used("zero", everything)]
    second = lists(TaskAccount.of(entries), "one", 2)
    entries += [begun("one", 2), used("one", second.selection)]
    same = lists(TaskAccount.of(entries), "two", 2)
    assert {*ids(same.selection)} == {*ids(second.selection)}
    rotated = lists(TaskAccount.of(entries), "three", 3)
    assert not {*ids(rotated.selection)} & {*ids(second.selection)}
    assert rotated.played == 1


def test_confirmation_tasks_come_by_how_few_trials_played_them() -> None:
    first = lists(TaskAccount(), "one")
    spent = first.confirmation[:10]
    account = TaskAccount.of([begun("one"), used("one", spent, ListName.CONFIRMATION)])
    second = lists(account, "two")
    assert {*ids(second.confirmation[-10:])} == {*ids(spent)}
    assert not second.unplayed() & {*ids(spent)}


def test_a_trial_that_is_resumed_is_given_what_it_was_given() -> None:
    first = lists(TaskAccount(), "one")
    played = [used("one", first.selection[:32]), used("one", first.confirmation[:9], ListName.CONFIRMATION)]
    assert lists(TaskAccount.of([begun("one"), *played]), "one") == first
    account = TaskAccount.of([begun("one", generation=1), begun("two", generation=2, promotions=1)])
    assert account.generation("one", promotions=5, rotate_after=3) == 1


def test_another_list_is_drawn_after_a_promotion_or_so_many_gates() -> None:
    entries: list[TrialBegun | TasksUsed] = []
    assert TaskAccount.of(entries).generation("0", 0, 3) == 1
    for trial, promotions, expected in [("0", 0, 1), ("1", 0, 1), ("2", 0, 1), ("3", 0, 2), ("4", 1, 3), ("5", 1, 3)]:
        generation = TaskAccount.of(entries).generation(trial, promotions, 3)
        assert generation == expected, trial
        entries.append(begun(trial, generation, promotions))


def test_who_met_a_variant_met_the_family() -> None:
    variants = [Task(environment="bfcl", task_id=f"calls/{n}~{mark}") for n in range(40) for mark in "ab"]
    everything = HoldoutSettings(selection=1.0, confirmation=0.0)
    first = draw(TaskAccount(), "one", 1, variants, (), everything, SETTINGS)
    assert [family(each) for each in ids(first.selection[::2])] == [family(each) for each in ids(first.selection[1::2])]
    met = first.selection[0].task_id
    account = TaskAccount.of([begun("one"), used("one", [met])])
    second = draw(account, "two", 1, variants, (), everything, SETTINGS)
    assert family(met) not in {family(each) for each in second.unplayed()}


def test_the_summary_says_what_is_left() -> None:
    assert TaskAccount().summary(0).fresh is None
    account = TaskAccount.of(
        [
            begun("one"),
            used("one", ["a/1", "a/2"]),
            used("one", ["c/1", "c/2"], ListName.CONFIRMATION),
            begun("two", fresh=48),
            used("two", ["a/1"]),
            used("two", ["c/1", "c/3"], ListName.CONFIRMATION),
        ]
    )
    summary = account.summary(promotions=0)
    assert (summary.trials, summary.generation, summary.gates_until_rotation) == (2, 1, 1)
    assert (summary.fresh, summary.uses) == (47, {"confirmation": 3, "selection": 2})
    assert (summary.mean_uses, summary.most_uses) == (1.5, 2)
    assert account.summary(promotions=1).gates_until_rotation == 3


@pytest.mark.parametrize("promotions", [1, 5, 20])
def test_the_overstatement_is_that_of_the_formula(promotions: int) -> None:
    bound = promotions * math.log(math.e * 200 / promotions) + math.log(20)
    assert overstatement(187, 200, promotions, 0.125) == pytest.approx(math.sqrt(2 * 0.125 * bound / 187))
    assert overstatement(0, 1, 1, 0.1) == 1.0
