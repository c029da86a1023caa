"""How the verdicts of several gates become one, and what a gate that fails does to it."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from evaluation.gates.gate import Evidence, Gate, TaskLists
from evaluation.gates.registry import load_gates
from evaluation.gates.verdict import GateResult, Verdict, combined
from evaluation.settings import GateSettings
from evaluation.trial import hold_trial
from streams.errors import ConfigurationError, GateError
from streams.trust.holdout import HoldoutSettings, Split
from tests.builders.trials import evidence, tasks


@dataclass
class Judging:
    """A gate that returns `verdict`, or raises `error`; `asked` counts."""

    verdict: Verdict = Verdict.PROMOTE
    error: Exception | None = None
    asked: list[int] = field(default_factory=list)

    name: ClassVar[str] = "judging"
    plays: ClassVar[bool] = False

    async def judge(self, evidence: Evidence) -> GateResult:
        self.asked.append(len(evidence.results))
        if self.error is not None:
            raise self.error
        return GateResult(gate=self.name, verdict=self.verdict, reason=f"Because of {self.verdict.value}.")


class Playing(Judging):
    plays: ClassVar[bool] = True


@pytest.mark.parametrize(
    ("verdicts", "together"),
    [
        ("PROMOTE PROMOTE", "PROMOTE"),
        ("PROMOTE HOLD", "HOLD"),
        ("HOLD INCONCLUSIVE", "INCONCLUSIVE"),
        ("INCONCLUSIVE REJECT HOLD", "REJECT"),
        ("", "INCONCLUSIVE"),
    ],
)
def test_only_if_every_gate_promotes_is_a_candidate_promoted(verdicts: str, together: str) -> None:
    results = [GateResult(gate="one", verdict=Verdict(each), reason=f"{each}.") for each in verdicts.split()]
    verdict, reason = combined(results)
    assert verdict.value == together
    assert not verdicts or reason == f"{together}." + f" {together}." * (verdicts.split().count(together) - 1)


async def test_gates_see_what_those_before_them_returned_and_costly_ones_are_passed_over_after_a_failure() -> None:
    gates = [Judging(), Judging(Verdict.INCONCLUSIVE), Playing(), Judging(Verdict.HOLD)]
    verdict, reason = await hold_trial(evidence(), gates)
    assert [gate.asked for gate in gates] == [[0], [1], [], [2]]
    assert (verdict, reason) == (Verdict.INCONCLUSIVE, "Because of INCONCLUSIVE.")


async def test_after_a_hold_costly_gates_are_still_played_so_that_a_person_knows_the_whole() -> None:
    gates = [Judging(Verdict.HOLD), Playing()]
    assert (await hold_trial(evidence(), gates))[0] is Verdict.HOLD
    assert gates[1].asked == [1]


@pytest.mark.parametrize("error", [GateError("no tasks are left"), ZeroDivisionError("division by zero")])
async def test_a_gate_that_fails_never_promotes(error: Exception) -> None:
    trial = evidence()
    verdict, reason = await hold_trial(trial, [Judging(), Judging(error=error)])
    assert verdict is Verdict.INCONCLUSIVE
    assert "The gate judging could not be played" in reason
    assert str(error) in reason


async def test_a_trial_refuses_tasks_of_the_training() -> None:
    holdout = HoldoutSettings()
    seen = next(task for task in tasks(100) if holdout.split(task.task_id) is Split.TRAIN)
    trial, gate = evidence(), Judging()
    trial.holdout, trial.tasks = holdout, TaskLists(selection=(), golden=(seen,))
    with pytest.raises(GateError, match="belongs to training"):
        await hold_trial(trial, [gate])
    assert gate.asked == []


async def test_unsolvable_tasks_need_not_be_held_out() -> None:
    holdout = HoldoutSettings()
    seen = next(task for task in tasks(100) if holdout.split(task.task_id) is Split.TRAIN)
    trial = evidence()
    trial.holdout, trial.tasks = holdout, TaskLists(selection=(), unsolvable=(seen,))
    assert (await hold_trial(trial, [Judging()]))[0] is Verdict.PROMOTE


def test_gates_are_found_by_name_and_an_unknown_one_is_refused() -> None:
    loaded: tuple[Gate, ...] = load_gates(["improvement", "sentinels"], GateSettings())
    assert [gate.name for gate in loaded] == ["improvement", "sentinels"]
    with pytest.raises(ConfigurationError, match=r"'astrology', which is not installed; known are: .*improvement"):
        load_gates(["astrology"], GateSettings())
