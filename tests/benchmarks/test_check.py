"""`python -m benchmarks.check`: one table of all that was run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import check
from benchmarks.baselines import Baseline, Measured, Verdict
from benchmarks.check import BENCHMARKS, Benchmark, Row, figures_of, measured, run_all, table
from daemon.console import Narrator

ROOT = Path(__file__).parents[2]
BASELINE = Baseline(arguments=(), ratio=0.5, seen="2026-11")


def shown(rows: list[Row]) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table(rows))
    return capture.get()


def test_the_table_has_the_ratio_the_baseline_its_noise_and_the_verdict() -> None:
    text = shown([Row("first", Verdict.WORSE, 0.3, BASELINE), Row("second", Verdict.FAILED, error="it said [nothing]")])
    first, second = (next(line for line in text.splitlines() if name in line) for name in ("first", "second"))
    assert [cell.strip() for cell in first.split("│")[1:-1]] == ["first", "0.3", "0.5 (2026-11)", "0.4 to 0.6", "WORSE"]
    assert "FAILED: it said [nothing]" in second


@pytest.mark.parametrize("figures", [{}, {"ratio": None}, {"ratio": "0.5"}, {"ratio": 0}, {"ratio": True}])
def test_a_ratio_that_is_missing_is_a_failure(figures: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError, match="ratio"):
        measured(Benchmark("any"), figures)


def test_a_benchmark_without_a_ratio_needs_none() -> None:
    assert measured(Benchmark("any", better=None), {}) == Measured((), None)
    assert measured(Benchmark("any"), {"ratio": 2, "ratios": [1, 2]}) == Measured((), 2.0, (1, 2))


def test_a_benchmark_that_fails_does_not_keep_the_others_from_running(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {"absent": Benchmark("not_there"), "usage": Benchmark("command_line", ("--no-such-option",))}
    monkeypatch.setattr(check, "BENCHMARKS", broken)
    rows, seen = run_all(list(broken), {}, Narrator(), show=False)
    assert [(row.name, row.verdict) for row in rows] == [("absent", Verdict.FAILED), ("usage", Verdict.FAILED)]
    assert "not_there" in rows[0].error
    assert "--no-such-option" in rows[1].error
    assert seen == {}


def test_a_benchmark_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "MOST_SECONDS", 0.0)
    monkeypatch.setattr(check, "_END_S", 1.0)
    with pytest.raises(RuntimeError, match="did not end"):
        figures_of(BENCHMARKS["command_line"], lambda passed: None)


@pytest.mark.nightly
def test_the_cheapest_benchmark_is_run_and_judged() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.check", "--only", "command_line", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout.splitlines()[-1])["benchmarks"]
    assert row["benchmark"] == "command_line"
    assert row["ratio"] > 1
    low, high = row["noise"]
    assert low < row["baseline"] < high
    expected = Verdict.WORSE if row["ratio"] > high else Verdict.BETTER if row["ratio"] < low else Verdict.SAME
    assert row["verdict"] == expected.value
