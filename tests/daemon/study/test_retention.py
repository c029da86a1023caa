"""Forgetting and the curve of practice, from measurements on the way."""

from pathlib import Path

import pytest
from scipy.stats import ttest_rel

from daemon.study.plan import Cell, StudyPlan
from daemon.study.report import write_report
from daemon.study.results import CellResult, Measurement
from daemon.study.retention import practice_curves, retention

START = {"train": [{"objective": "imitation", "updates": 2}], "measure": True}
DOMAIN = {"domain": {"environment": "textworld_express", "suite": "twc"}}
PLAN = StudyPlan.model_validate(
    {
        "baseline": "imitation",
        "seeds": [0, 1],
        "learn_in": ["first"],
        "domains": {"first": DOMAIN, "second": {"domain": {"environment": "textworld_express", "suite": "coin"}}},
        "arms": {
            "imitation": {"variants": [{"stages": START["train"]}]},
            "later": {"variants": [{"phases": [START, {"train": START["train"], "domain": "second"}]}]},
            "practised": {"variants": [{"phases": [START, {"practise": {}}, {"train": START["train"]}]}]},
        },
    }
)


def solved(tasks: str) -> dict[str, bool]:
    return {task: task in tasks for task in "abcdef"}


def result(cell: Cell, tasks: str, *measured: Measurement, practised: int = 0) -> CellResult:
    return CellResult(
        cell=cell,
        solved=solved(tasks),
        mean_score=0.5,
        invalid_actions=0.0,
        variant=0,
        updates=2,
        tokens=100,
        losses={"imitation": (2.0, 1.0)},
        seconds=1.0,
        measured=measured,
        practised=practised,
        skipped=("grpo",) if practised else (),
        code="1.2.3 abcdef",
    )


def measured(phase: int, domain: str, tasks: str) -> Measurement:
    return Measurement(phase=phase, domain=domain, practised=0, solved=solved(tasks))


def results() -> list[CellResult]:
    """Learning the second domain costs the tasks a and b on one seed, and a on the other."""
    found = []
    for cell in PLAN.cells():
        after = "cd" if cell.data.seed else "bcd"
        match cell.arm_name:
            case "imitation":
                found.append(result(cell, "abcd"))
            case "later":
                found.append(result(cell, after, measured(0, "first", "abcd"), measured(1, "second", "abc")))
            case _:
                found.append(result(cell, "abcde", measured(0, "first", "abcd"), practised=10 + cell.data.seed))
    return found


def test_what_is_kept_of_the_first_domain_is_paired_by_task_over_seeds() -> None:
    (later,) = retention(results())
    assert (later.domain, later.arm, later.others) == ("first", "later", ("second",))
    assert (later.seeds, later.tasks) == (2, 6)
    assert later.before == pytest.approx(4 / 6)
    assert later.after == pytest.approx(2.5 / 6)
    assert later.difference == pytest.approx(-1.5 / 6)
    assert later.learned == pytest.approx(3 / 6)
    expected = ttest_rel([0, 0.5, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0]).confidence_interval()
    assert later.low == pytest.approx(expected.low)
    assert later.high == pytest.approx(expected.high)


def test_success_is_told_by_the_episodes_of_practice_until_then() -> None:
    curves = practice_curves(results())
    assert list(curves) == [("first", "practised")]
    start, end = curves["first", "practised"]
    assert (start.practised, end.practised, start.seeds, end.seeds) == (0, 10.5, 2, 2)
    assert [start.success, end.success] == pytest.approx([4 / 6, 5 / 6])
    assert end.spread == (5 / 6, 5 / 6)


def test_the_report_has_tables_of_forgetting_and_practice_and_tells_the_version(tmp_path: Path) -> None:
    page, *plots = write_report(PLAN, results(), tmp_path / "study.md")
    text = page.read_text()
    assert "| first | second | 60 | later | 2 | 6 | 0.667 | 0.417 | -0.250 (" in text
    assert "| first | practised | 0: 0.667, 10: 0.833 |" in text
    assert "Run on 1.2.3 abcdef." in text
    assert "In 2 of 2 cells of `practised`, grpo found nothing to learn from at times." in text
    assert [path.name for path in plots] == ["study-first-practice.svg", "study-first-losses.svg"]
    assert all("<svg" in path.read_text() and f"({path.name})" in text for path in plots)
