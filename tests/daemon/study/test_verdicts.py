"""The gates that the measurements of a cell's way would have passed."""

from pathlib import Path

import pytest

from daemon.study.plan import Cell, StudyPlan
from daemon.study.report import write_report
from daemon.study.results import OUT_OF_DOMAIN, CellResult, Measurement
from daemon.study.verdicts import judged_courses
from evaluation.gates.verdict import Verdict
from evaluation.settings import GateSettings

TASKS = 96
TRAIN = {"train": [{"objective": "imitation", "updates": 1}], "measure": True}
PLAN = StudyPlan.model_validate(
    {
        "baseline": "imitation",
        "seeds": [0],
        "domains": {"desk": {"domain": {"environment": "toolbox", "suite": "helpdesk"}}},
        "arms": {"imitation": {"variants": [{"phases": [TRAIN] * 4}]}},
        "out_of_domain_tasks": 2,
    }
)


def solved(start: int, end: int) -> dict[str, bool]:
    """Of all tasks those from `start` to before `end`."""
    return {f"{task:02}": start <= task < end for task in range(TASKS)}


def result(cell: Cell, *courses: dict[str, bool], outside: bool) -> CellResult:
    """A result of these measurements, the last of which is its own."""
    measured = [
        Measurement(phase=phase, domain="desk", practised=0, solved=each) for phase, each in enumerate(courses[:-1])
    ]
    if outside:
        measured += [
            Measurement(phase=phase, domain=OUT_OF_DOMAIN, practised=0, solved={"a": True, "b": phase > 1})
            for phase in range(len(courses))
        ]
    return CellResult(
        cell=cell,
        solved=courses[-1],
        mean_score=0.5,
        invalid_actions=0.0,
        variant=0,
        updates=4,
        tokens=100,
        losses={"imitation": (1.0, 0.5)},
        seconds=1.0,
        measured=tuple(measured),
    )


@pytest.fixture
def cell() -> Cell:
    (found,) = PLAN.cells()
    return found


def test_a_candidate_is_judged_against_the_last_one_that_was_promoted(cell: Cell) -> None:
    done = result(cell, solved(0, 30), solved(0, 34), solved(0, 90), solved(0, 20), outside=True)
    ((found, (first, unproved, better, worse)),) = judged_courses([done], GateSettings())
    assert found is done
    assert (first.verdict, first.success, first.out_of_domain) == (None, 30 / TASKS, 0.5)
    # Four tasks more are no proof.
    assert (unproved.verdict, unproved.wins, unproved.losses) == (Verdict.INCONCLUSIVE, 4, 0)
    # The champion is still the first, and two blocks of the tasks are enough.
    assert (better.verdict, better.tasks, better.wins, better.losses) == (Verdict.PROMOTE, 64, 34, 0)
    assert better.out_of_domain == 1.0
    assert (worse.verdict, worse.tasks, worse.wins, worse.losses) == (Verdict.REJECT, 32, 0, 12)


def test_a_chance_success_early_on_does_not_end_the_gate(cell: Cell) -> None:
    done = result(cell, solved(6, 40), solved(0, 40), solved(0, 40), solved(0, 40), outside=False)
    ((_, judged),) = judged_courses([done], GateSettings())
    assert [each.verdict for each in judged[1:]] == [Verdict.INCONCLUSIVE] * 3
    assert [each.out_of_domain for each in judged] == [None] * 4


def test_without_measurements_on_the_way_there_is_nothing_to_judge(cell: Cell) -> None:
    assert judged_courses([result(cell, solved(0, 40), outside=False)], GateSettings()) == []


def test_the_report_tells_the_gates(cell: Cell, tmp_path: Path) -> None:
    done = result(cell, solved(0, 30), solved(0, 34), solved(0, 90), solved(0, 20), outside=True)
    page, *_ = write_report(PLAN, [done], tmp_path / "study.md")
    told = "0.312 (0.500); 0.354 (0.500) INCONCLUSIVE 4:0 of 96; 0.938 (1.000) PROMOTE 34:0 of 64;"
    assert f"| desk | imitation | 0 | {told}" in page.read_text()
