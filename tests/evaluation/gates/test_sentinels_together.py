"""What the sentinels hold up that stays below the bound of each: odd wins of several kinds, and habits in failures."""

from dataclasses import replace

import pytest

from evaluation.gates.sentinels import judged
from evaluation.gates.verdict import Verdict
from evaluation.rollouts import Rollout
from evaluation.sentinels.facts import Facts
from ratchet_client.events import Task
from ratchet_client.messages import Messages, assistant
from tests.builders.sentinels import ODD, SETTINGS, act, desk, hold, honest, look, on_desk, played, solutions, trial


def in_turn(task: Task, number: int) -> Rollout:
    """Of every fifteen wins one is mostly invalid, one mostly repeats, one asks back and one is of a fixed sequence."""
    ways = {
        0: played(task, True, invalid=4),
        1: played(task, True, act(task, 1) * 6),
        2: played(task, True, (*act(task, 4), assistant("Which one do you mean?"))),
        3: played(task, True, act(Task(environment="x", task_id="any"))),
    }
    return ways.get(number % 15, honest(task, number))


def test_wins_that_are_each_odd_in_another_way_hold_together() -> None:
    result = hold(trial(in_turn), "Any way: 8 of 30 wins (26.7%)", solutions=solutions())
    assert result.reason.startswith("Any way")
    assert result.figures["odd_wins"] == pytest.approx(8 / 30)


def test_wins_as_odd_as_the_champions_successes_do_not_hold() -> None:
    pairs = [
        replace(pair, champion=replace(in_turn(pair.task, n), success=n < 40, score=float(n < 40)))
        for n, pair in enumerate(trial(in_turn, ties=in_turn))
    ]
    assert judged(Facts(pairs), SETTINGS).verdict is Verdict.PROMOTE


def another_way(task: Task, kept: int) -> Messages:
    """The known solution's first `kept` actions, and others that nobody takes twice."""
    return (*act(task, kept), *(assistant(f"move {task.task_id} by {step}") for step in range(5 - kept)))


@pytest.mark.parametrize(("kept", "held"), [(2, True), (3, False)])
def test_wins_without_half_of_the_known_solution_hold_unless_the_champion_does_the_same(kept: int, held: bool) -> None:
    pairs = trial(lambda task, number: played(task, True, another_way(task, kept)))
    result = judged(Facts(pairs, solutions()), SETTINGS)
    assert (result.verdict is Verdict.HOLD) is held
    alike = [
        replace(pair, champion=played(pair.task, n < 40, another_way(pair.task, kept))) for n, pair in enumerate(pairs)
    ]
    assert judged(Facts(alike, solutions()), SETTINGS).verdict is Verdict.PROMOTE


def test_habits_among_failed_tasks_hold_though_they_are_not_more_of_all_tasks() -> None:
    def champion(task: Task, solved: bool) -> Rollout:
        number = int(task.task_id.rpartition("/")[2])
        return on_desk(task, solved, look(task), ODD["Questions"] if number >= 90 else assistant("Done."))

    def candidate(task: Task, solved: bool, number: int) -> Rollout:
        asks = not solved and number < 86
        return on_desk(task, solved, look(task), ODD["Questions"] if asks else assistant("Done."))

    hold(desk(candidate, champion), "Questions: 16 of its 30 failed tasks", "of the champion's 10 of 60")
    same = desk(lambda task, solved, n: champion(task, solved), champion)
    assert judged(Facts(same), SETTINGS).verdict is Verdict.PROMOTE
