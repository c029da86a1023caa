"""What is proved against base and anchor, what is not, and what follows when there are few tasks."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from evaluation.gates.gate import Competitor, Evidence, TaskLists
from evaluation.gates.no_forgetting import Compared, NoForgetting, decide
from evaluation.gates.verdict import Verdict
from evaluation.rollouts import Pair
from evaluation.settings import GateSettings, NoForgettingSettings
from evaluation.trial import hold_trial
from ratchet_client.events import Task
from tests.builders.trials import CANDIDATE, RecordedArena, evidence, rollout, tasks

ANCHOR = Competitor("c" * 64, "ratchet-2-cccccccccccc")
DEFAULT = NoForgettingSettings()


def compared(tasks: int, wins: int, losses: int, reference: str = "base") -> Compared:
    return Compared(reference, tasks, wins, losses)


def verdict(*each: Compared, **settings: object) -> Verdict:
    return decide(each, DEFAULT.model_copy(update=settings))[0]


def test_only_a_proof_against_each_reference_proves_it() -> None:
    assert verdict(compared(400, 40, 20), compared(400, 40, 20, "anchor")) is Verdict.PROMOTE
    unproved = compared(400, 4, 7, "anchor")
    told, reason = decide([compared(400, 40, 20), unproved], DEFAULT.model_copy(update={"require": "proof"}))
    assert told is Verdict.INCONCLUSIVE
    assert "worse than the anchor" in reason


def test_one_that_is_significantly_worse_than_a_reference_is_rejected_whatever_is_asked_for() -> None:
    for require in ("proof", "when_possible", "no_harm"):
        assert verdict(compared(400, 40, 20), compared(400, 5, 20, "anchor"), require=require) is Verdict.REJECT
    # Both references together raise no more false alarms than one.
    assert verdict(compared(400, 4, 13)) is Verdict.REJECT
    assert verdict(compared(400, 4, 13), compared(400, 40, 20, "anchor")) is Verdict.REJECT
    assert verdict(compared(400, 5, 13)) is Verdict.REJECT
    assert verdict(compared(400, 5, 13), compared(400, 40, 20, "anchor")) is not Verdict.REJECT


@pytest.mark.parametrize(
    ("require", "few", "many"),
    [
        ("proof", Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE),
        ("when_possible", Verdict.PROMOTE, Verdict.INCONCLUSIVE),
        ("no_harm", Verdict.PROMOTE, Verdict.PROMOTE),
    ],
)
def test_what_is_not_proved_promotes_only_where_the_tasks_could_not_prove_it(
    require: str, few: Verdict, many: Verdict
) -> None:
    # 60 tasks prove it of an equal candidate with a power of 0.06, 1,600 of one that hardly differs with 0.9.
    assert verdict(compared(60, 4, 4), require=require) is few
    assert verdict(compared(1600, 40, 56), require=require) is many


def test_a_loss_that_is_proved_to_be_smaller_than_the_margin_is_borne() -> None:
    assert verdict(compared(6000, 100, 140)) is Verdict.PROMOTE
    assert verdict(compared(6000, 100, 140), margin=0.005) is Verdict.REJECT


def test_the_missing_power_is_said() -> None:
    _, reason = decide([compared(60, 4, 4)], DEFAULT)
    assert "power of only 0.0" in reason
    assert "would take 2617" in reason


@pytest.mark.parametrize(
    ("require", "expected"),
    [("proof", Verdict.INCONCLUSIVE), ("when_possible", Verdict.HOLD), ("no_harm", Verdict.HOLD)],
)
def test_with_hardly_any_task_a_person_decides_and_nothing_is_promoted(require: str, expected: Verdict) -> None:
    assert verdict(compared(20, 0, 0), require=require) is expected
    assert verdict(require=require) is expected
    assert verdict(compared(0, 0, 0), require=require) is expected
    # Few tasks may prove much.
    assert verdict(compared(20, 20, 0), require=require) is Verdict.PROMOTE


def trial(
    results: Callable[[Task, str], bool], count: int = 200, anchor: Competitor = ANCHOR, fresh: int = 200
) -> Evidence:
    made = evidence(results=lambda task, model: rollout(task, results(task, model)))
    made.anchor = anchor
    listed = tuple(tasks(count))
    made.tasks = TaskLists(selection=(), confirmation=listed, fresh=frozenset(each.task_id for each in listed[:fresh]))
    return made


def asked(evidence: Evidence) -> dict[str, int]:
    assert isinstance(evidence.arena, RecordedArena)
    played: dict[str, int] = {}
    for model, count in evidence.arena.asked:
        played[model] = played.get(model, 0) + count
    return played


async def test_a_clear_gain_takes_few_fresh_tasks() -> None:
    made = trial(lambda task, model: model == CANDIDATE.served)
    result = await NoForgetting(GateSettings()).judge(made)
    assert result.verdict is Verdict.PROMOTE
    assert result.figures["tasks"] == result.figures["fresh_tasks"] == 32
    assert result.figures["candidate_success"] == 1.0
    assert asked(made) == {CANDIDATE.served: 32, "base": 32, ANCHOR.served: 32}


async def test_a_reference_that_is_beaten_clearly_is_played_no_more() -> None:
    made = trial(lambda task, model: model != "base")
    result = await NoForgetting(GateSettings()).judge(made)
    assert asked(made) == {CANDIDATE.served: 200, "base": 32, ANCHOR.served: 200}
    assert result.verdict is Verdict.PROMOTE
    assert "not significantly worse" not in result.reason


async def test_base_and_anchor_are_played_once_where_they_are_one() -> None:
    made = trial(lambda task, model: False, anchor=Competitor("base", "base"))
    result = await NoForgetting(GateSettings()).judge(made)
    assert asked(made) == {CANDIDATE.served: 200, "base": 200}
    assert result.figures["tasks_with_base_and_anchor"] == 200


async def test_what_forgets_is_rejected_and_used_tasks_are_said_to_be_used() -> None:
    made = trial(lambda task, model: model == ANCHOR.served and int(task.seed) % 8 == 0, fresh=50)
    result = await NoForgetting(GateSettings()).judge(made)
    assert result.verdict is Verdict.REJECT
    assert "worse than the anchor" in result.reason
    assert "150 of these tasks are not fresh" in result.reason


async def test_tasks_that_this_trial_played_and_variants_of_them_are_not_played_again() -> None:
    made = trial(lambda task, model: True, count=6)
    first, *others = tasks(6)
    variant = replace_id(others[0], f"{first.task_id}~again")
    again = replace_id(others[1], f"{others[2].task_id}~again")
    made.tasks = replace(made.tasks, confirmation=(first, variant, others[2], again, others[3]))
    made.pairs.append(Pair(first, rollout(first, True), rollout(first, True)))
    await NoForgetting(GateSettings()).judge(made)
    assert asked(made)[CANDIDATE.served] == 2


def replace_id(task: Task, task_id: str) -> Task:
    return task.model_copy(update={"task_id": task_id})


async def test_an_anchor_that_could_not_be_loaded_makes_it_inconclusive_and_nothing_is_played_for_it() -> None:
    made = trial(lambda task, model: True, anchor=replace(ANCHOR, missing="its folder is gone"))
    found, reason = await hold_trial(made, [NoForgetting(GateSettings())])
    assert found is Verdict.INCONCLUSIVE
    assert "its folder is gone" in reason
    assert asked(made) == {}
