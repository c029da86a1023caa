"""A ratio beside the one that was seen before."""

from datetime import date
from pathlib import Path

import pytest

from benchmarks.baselines import (
    BASELINES,
    Baseline,
    Better,
    Measured,
    Verdict,
    judged,
    processor_flags,
    read_baselines,
    updated,
    write_baselines,
)
from benchmarks.check import BENCHMARKS
from ratchet_client.errors import ConfigurationError

FLAGS = ("avx2", "avx512f")
ONCE = Baseline(arguments=(), ratio=0.5, seen="2026-11")
OFTEN = Baseline(arguments=("--events", "10"), ratio=0.5, spread=(0.3, 0.51), flags=FLAGS, seen="2026-11-29")


def verdict(ratio: float | None, baseline: Baseline | None, better: Better = Better.HIGHER) -> Verdict:
    return judged(Measured(baseline.arguments if baseline else (), ratio), better, baseline, FLAGS)


@pytest.mark.parametrize(
    ("ratio", "baseline", "expected"),
    [
        (0.4, ONCE, Verdict.SAME),
        (0.6, ONCE, Verdict.SAME),
        (0.39, ONCE, Verdict.WORSE),
        (0.61, ONCE, Verdict.BETTER),
        (0.3, OFTEN, Verdict.SAME),
        (0.55, OFTEN, Verdict.SAME),
        (0.29, OFTEN, Verdict.WORSE),
        (0.56, OFTEN, Verdict.BETTER),
        (0.5, None, Verdict.NO_BASELINE),
        (None, ONCE, Verdict.NO_RATIO),
    ],
)
def test_a_ratio_is_worse_where_it_is_below_its_baseline_by_more_than_noise(
    ratio: float | None, baseline: Baseline | None, expected: Verdict
) -> None:
    assert verdict(ratio, baseline) is expected


def test_a_cost_is_worse_where_it_rises() -> None:
    assert verdict(0.7, ONCE, Better.LOWER) is Verdict.WORSE
    assert verdict(0.3, ONCE, Better.LOWER) is Verdict.BETTER
    assert verdict(0.5, ONCE, Better.LOWER) is Verdict.SAME


def test_other_arguments_and_other_processors_are_not_compared() -> None:
    assert judged(Measured(("--events", "20"), 0.1), Better.HIGHER, OFTEN, FLAGS) is Verdict.NO_BASELINE
    assert judged(Measured(OFTEN.arguments, 0.1), Better.HIGHER, OFTEN, ("avx2",)) is Verdict.OTHER_PROCESSOR
    assert judged(Measured((), 0.1), Better.HIGHER, ONCE, ("avx2",)) is Verdict.WORSE


def test_a_new_baseline_is_as_noisy_as_the_old_one_at_least() -> None:
    today = date(2026, 11, 30)
    new = updated(OFTEN, Measured(OFTEN.arguments, 1.0, (0.9, 1.0, 1.3)), FLAGS, today)
    assert new == Baseline(arguments=OFTEN.arguments, ratio=1.0, spread=(0.6, 1.3), flags=FLAGS, seen="2026-11-30")
    assert updated(ONCE, Measured((), 1.0), FLAGS, today).spread is None
    assert updated(OFTEN, Measured((), 1.0, (0.9, 1.0)), FLAGS, today).spread == (0.9, 1.0)
    assert updated(None, Measured((), 1.0, (0.9, 1.1)), FLAGS, today).spread == (0.9, 1.1)


def test_what_has_no_ratio_makes_no_baseline() -> None:
    with pytest.raises(ValueError, match="leave it out"):
        updated(None, Measured((), None), FLAGS, date(2026, 11, 30))


def test_the_baselines_that_are_kept_are_of_the_benchmarks_as_they_are_run() -> None:
    kept = read_baselines(BASELINES)
    assert {name: each.arguments for name, each in kept.items()} == {name: BENCHMARKS[name].arguments for name in kept}
    assert all(BENCHMARKS[name].better for name in kept)
    assert all(low < each.ratio < high for each in kept.values() for low, high in [each.noise])


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "baselines.json"
    write_baselines(path, {"second": OFTEN, "first": ONCE})
    assert read_baselines(path) == {"first": ONCE, "second": OFTEN}
    assert path.read_text().index("first") < path.read_text().index("second")
    path.write_text("{")
    with pytest.raises(ConfigurationError, match="Restore"):
        read_baselines(path)


def test_the_flags_of_this_processor_are_among_those_that_the_system_lists() -> None:
    listed = set(Path("/proc/cpuinfo").read_text().split())
    assert set(processor_flags()) <= listed
    assert ("avx2" in processor_flags()) == ("avx2" in listed)
