from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.statistics import mcnemar_exact, wilson_interval


@given(wins=st.integers(0, 6), losses=st.integers(0, 6))
def test_mcnemar_counts_the_outcomes_of_fair_coins_that_are_at_least_as_good(wins: int, losses: int) -> None:
    outcomes = list(product((0, 1), repeat=wins + losses))
    as_good = sum(sum(outcome) >= wins for outcome in outcomes)
    assert mcnemar_exact(wins, losses) == pytest.approx(as_good / len(outcomes))


@given(wins=st.integers(0, 500), losses=st.integers(0, 500))
def test_more_wins_are_never_weaker_evidence(wins: int, losses: int) -> None:
    assert mcnemar_exact(wins + 1, losses) <= mcnemar_exact(wins, losses) <= mcnemar_exact(wins, losses + 1)


@given(wins=st.integers(0, 500), losses=st.integers(0, 500))
def test_both_directions_cannot_be_significant_at_once(wins: int, losses: int) -> None:
    assert mcnemar_exact(wins, losses) + mcnemar_exact(losses, wins) >= 1


@given(data=st.data(), trials=st.integers(1, 2000))
def test_wilsons_interval_solves_the_score_equation_and_holds_the_rate(data: st.DataObject, trials: int) -> None:
    successes = data.draw(st.integers(0, trials))
    rate, interval = successes / trials, wilson_interval(successes, trials)
    assert 0 <= interval.low <= rate + 1e-12
    assert rate - 1e-12 <= interval.high <= 1
    for bound in (interval.low, interval.high):
        if 0 < bound < 1:
            assert (rate - bound) ** 2 == pytest.approx(1.959964**2 * bound * (1 - bound) / trials, rel=1e-4, abs=1e-9)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        mcnemar_exact(-1, 0)
    with pytest.raises(ValueError, match="not a success rate"):
        wilson_interval(1, 0)
