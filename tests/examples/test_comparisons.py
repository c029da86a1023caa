"""The comparisons, each as small as it can be, with the real model, sandboxes and training."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("program", "options", "runs"),
    [
        ("compare_objectives", "--seeds 1 --demonstrations 2 --updates 4 --tasks 2", 2),
        ("compare_recoveries", "--failures 2 --budget 4 --steps 2 --selectors uniform novelty", 2),
        ("compare_selectors", "--seeds 0 --demonstrations 2 --updates 1 --tasks 1 --play 1 --imitation 1", 6),
    ],
)
def test_a_comparison_reports_each_of_its_runs(program: str, options: str, runs: int) -> None:
    command = [sys.executable, "-m", f"examples.{program}", *options.split(), "--json"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert len(json.loads(result.stdout)["runs"]) == runs
