"""The comparisons, each as small as it can be, with the real model, sandboxes and training."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streams.branching.selectors import SELECTORS

pytestmark = pytest.mark.nightly

ReportOf = Callable[[str, str], dict[str, Any]]
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def report_of(embedded_home: Path) -> ReportOf:
    """What a comparison prints, with these options."""

    def run(program: str, options: str) -> dict[str, Any]:
        command = [sys.executable, "-m", f"examples.{program}", *options.split()]
        command += [] if program == "bfcl_cycle" else ["--json"]
        variables = {**os.environ, "RATCHET_HOME": str(embedded_home)}
        result = subprocess.run(command, cwd=REPOSITORY, env=variables, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        report: dict[str, Any] = json.loads(result.stdout)
        return report

    return run


def test_objectives_are_compared_at_equal_updates_on_the_same_tasks(report_of: ReportOf) -> None:
    report = report_of("compare_objectives", "--seeds 1 --demonstrations 2 --updates 4 --tasks 2")
    assert (report["demonstrations"], report["updates"]) == (2, 4)
    assert [(run["arm"], run["seed"], run["tasks"]) for run in report["runs"]] == [
        ("imitation", 0, 2),
        ("world model + imitation", 0, 2),
    ]
    for run in report["runs"]:
        assert run["trained_tokens"] > 0
        assert run["success"] in (0.0, 0.5, 1.0)
        assert all(0 <= run[share] <= 1 for share in ("mean_score", "invalid_actions"))
    imitation, both = (2 * run["success"] for run in report["runs"])
    assert report["wins"] - report["losses"] == both - imitation
    assert report["p_better"] + report["p_worse"] >= 1


def test_recoveries_are_compared_on_the_same_failures_within_one_budget(report_of: ReportOf) -> None:
    report = report_of("compare_recoveries", "--failures 2 --budget 4 --steps 2 --selectors uniform novelty")
    assert (report["failed"], report["budget"]) == (2, 4)
    assert report["played"] >= 2
    assert [(run["selector"], run["steps"], run["episodes"]) for run in report["runs"]] == [
        ("uniform", 2, 2),
        ("novelty", 2, 2),
    ]
    for run in report["runs"]:
        assert 0 < run["sandbox_steps"] <= 2 * report["budget"]
        assert 0 < run["attempts"] <= run["sandbox_steps"]
        assert run["recovered"] <= run["episodes"]
        low, high = run["interval"]
        assert low <= run["recovered"] / run["episodes"] <= high


def test_selectors_are_compared_at_one_budget_with_the_base_model_as_the_measure(report_of: ReportOf) -> None:
    options = "--seeds 0 --demonstrations 2 --updates 1 --tasks 1 --play 1 --imitation 1"
    report = report_of("compare_selectors", options)
    assert {run["arm"] for run in report["runs"]} == {*SELECTORS, "in_rounds", "while_surprising"}
    assert len(report["runs"]) == len(SELECTORS) + 2
    assert report["before"] > 0
    for run in report["runs"]:
        assert 0 < run["branches"] <= report["demonstrations"] * report["budget"]
        assert run["trained_tokens"] > 0
        assert run["loss"] > 0
        assert run["success"] in (0.0, 1.0)
    assert any(run["loss"] != report["before"] for run in report["runs"])


def test_a_cycle_of_tool_calls_goes_from_demonstrations_to_a_verdict(report_of: ReportOf) -> None:
    report = report_of("bfcl_cycle", "--tasks 1 --branches 2 --updates 2 --gate-tasks 1 --steps 2 --max-length 4096")
    assert (report["demonstrations"], report["verdict"]) == (1, "INCONCLUSIVE")
    assert sum(report["branches"].values()) == 2
    assert [(each["objective"], each["updates"]) for each in report["training"]] == [
        ("world_model", 1),
        ("imitation", 1),
    ]
    for each in report["training"]:
        assert each["tokens"] > 0
    for player in (report["champion"], report["candidate"]):
        assert player["side"]["tasks"] == 1
        assert 1 <= sum(player["actions"].values()) <= 2
