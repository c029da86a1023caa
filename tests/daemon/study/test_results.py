"""Results of cells are kept and compared."""

from pathlib import Path

import pytest
from scipy.stats import ttest_rel

from daemon.study.plan import Arm, Cell, StudyPlan, Variant
from daemon.study.report import write_report
from daemon.study.results import CellResult, Results, differences
from ratchet_client.errors import ConfigurationError

PLAN = StudyPlan.model_validate(
    {
        "baseline": "imitation",
        "seeds": [0, 1],
        "demonstrations": [4, 8],
        "domains": {"game": {"domain": {"environment": "textworld_express", "suite": "twc"}}},
        "arms": {
            "imitation": {"variants": [{"stages": [{"objective": "imitation", "updates": 2}]}]},
            "both": {"variants": [{"stages": [{"objective": "world_model", "updates": 2}]}]},
        },
    }
)


def result(cell: Cell, solved: str) -> CellResult:
    """A result in which the tasks of `solved`, of the tasks a to f, were solved."""
    return CellResult(
        cell=cell,
        solved={task: task in solved for task in "abcdef"},
        mean_score=0.5,
        invalid_actions=0.0,
        variant=0,
        updates=2,
        tokens=100,
        losses={"imitation": (2.0, 1.0)},
        seconds=1.0,
    )


def results() -> list[CellResult]:
    """The arm solves a and b on one seed, a, b and c on the other; the baseline a on both."""
    solved = {("imitation", 0): "a", ("imitation", 1): "a", ("both", 0): "ab", ("both", 1): "abc"}
    return [result(cell, solved[cell.arm_name, cell.data.seed]) for cell in PLAN.cells()]


def test_a_result_is_found_again_by_its_cell_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    kept, (first, second, *_) = Results(tmp_path), PLAN.cells()
    assert kept.find(first) is None
    kept.keep(result(first, "ab"))
    assert kept.find(first) == result(first, "ab")
    assert kept.find(second) is None
    (path,) = tmp_path.iterdir()
    path.write_text("{}")
    with pytest.raises(ConfigurationError, match=path.name):
        kept.find(first)


def test_results_are_found_in_another_folder_under_other_names(tmp_path: Path) -> None:
    for each in results():
        Results(tmp_path / "first").keep(each)
    (tmp_path / "first").rename(tmp_path / "second")
    names = {"domains": {"kitchen": PLAN.domains["game"]}, "arms": {**PLAN.arms, "joint": PLAN.arms["both"]}}
    renamed = PLAN.model_copy(update=names)
    found = [Results(tmp_path / "second").find(cell) for cell in renamed.cells()]
    assert [each and each.cell for each in found] == list(renamed.cells())


def test_a_result_under_a_default_that_has_changed_since_is_other_work(tmp_path: Path) -> None:
    kept, cell = Results(tmp_path), next(PLAN.cells())
    stage = cell.arm.variants[0].stages[0]
    older = Variant(stages=(stage.model_copy(update={"trajectories": 7}),))
    kept.keep(result(cell.model_copy(update={"arm": Arm(variants=(older,))}), "ab"))
    (path,) = tmp_path.iterdir()
    path.rename(tmp_path / f"{cell.cell_id}.json")
    assert kept.find(cell) is None


def test_arms_are_compared_on_the_same_tasks_over_all_seeds() -> None:
    found = {(each.arm, each.demonstrations): each for each in differences(results(), "imitation")}
    assert set(found) == {(arm, number) for arm in ("imitation", "both") for number in (4, 8)}
    both = found["both", 4]
    assert (both.seeds, both.tasks) == (2, 6)
    assert both.baseline == pytest.approx(1 / 6)
    assert both.success == pytest.approx(2.5 / 6)
    assert both.spread == pytest.approx((2 / 6, 3 / 6))
    assert both.difference == pytest.approx(1.5 / 6)
    assert (found["imitation", 4].difference, found["imitation", 4].low) == (0.0, 0.0)


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    both = next(each for each in differences(results(), "imitation") if each.arm == "both")
    expected = ttest_rel([1, 1, 0.5, 0, 0, 0], [1, 0, 0, 0, 0, 0]).confidence_interval()
    assert both.low == pytest.approx(expected.low)
    assert both.high == pytest.approx(expected.high)


def test_an_arm_without_its_baseline_is_not_compared() -> None:
    assert differences([each for each in results() if each.cell.arm_name == "both"], "imitation") == []


def test_the_report_has_a_row_for_each_arm_and_plots(tmp_path: Path) -> None:
    page, *plots = write_report(PLAN, results(), tmp_path / "docs" / "study.md")
    text = page.read_text()
    assert text.startswith("8 of 8 cells.")
    assert "| game | 4 | 3 | 0% | both | updates | 2 | 6 | 0.417 (0.333 to 0.500) | +0.250 (" in text
    assert [path.name for path in plots] == ["study-game-demonstrations.svg", "study-game-losses.svg"]
    for path in plots:
        assert "<svg" in path.read_text()
        assert f"({path.name})" in text
