"""The sequential test of two streams: valid for every null hypothesis that it names, and strong where there is a lead."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.two_samples import EFFECTS, BlockShape, TwoSamples, _apart, _Bet, _equal

SHAPES = [BlockShape(1, 1), BlockShape(9, 1), BlockShape(1, 3)]
RATES = st.floats(0.0, 1.0)


def chance(successes: int, trials: int, rate: float) -> float:
    return math.comb(trials, successes) * rate**successes * (1 - rate) ** (trials - successes)


def mean_of(bet: _Bet, shape: BlockShape, champion: float, candidate: float) -> float:
    """The exact mean of a block's e-variable where the sides succeed at these rates."""
    return sum(
        chance(a, shape.champion, champion)
        * chance(b, shape.candidate, candidate)
        * math.exp(bet.log_ratio(shape, a, b))
        for a, b in itertools.product(range(shape.champion + 1), range(shape.candidate + 1))
    )


@given(st.sampled_from(SHAPES), RATES, st.sampled_from(EFFECTS), RATES, RATES)
def test_no_bet_gains_on_average_where_its_null_hypothesis_holds(
    shape: BlockShape, around: float, effect: float, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    assert mean_of(_apart(around, effect, shape), shape, high, low) <= 1 + 1e-9
    assert mean_of(_apart(around, -effect, shape), shape, low, high) <= 1 + 1e-9


@given(st.sampled_from(SHAPES), RATES, st.floats(0.01, 0.3), RATES, RATES)
def test_the_bet_on_not_worse_gains_nothing_where_the_candidate_is_worse_by_the_margin(
    shape: BlockShape, around: float, margin: float, one: float, other: float
) -> None:
    candidate = one * (1 - margin)
    champion = candidate + margin + other * (1 - margin - candidate)
    assert mean_of(_equal(around, margin, shape), shape, champion, candidate) <= 1 + 1e-6


def test_e_values_are_those_of_the_likelihoods_written_out() -> None:
    test = TwoSamples(BlockShape(1, 1))
    test.add(candidate=True, success=True)
    assert (test.blocks, test.e_better) == (0, 1.0)  # half a block says nothing
    test.add(candidate=False, success=False)
    expected = [(0.5 + effect / 2) / 0.5 * ((0.5 + effect / 2) / 0.5) for effect in EFFECTS]
    assert test.blocks == 1
    assert test.e_better == pytest.approx(sum(expected) / len(EFFECTS))
    assert test.e_worse == pytest.approx(sum((1 - effect) ** 2 for effect in EFFECTS) / len(EFFECTS))


def test_a_long_run_of_one_side_alone_is_no_evidence() -> None:
    test = TwoSamples(BlockShape.of(0.1), margin=0.05)
    for _ in range(10_000):
        test.add(candidate=False, success=True)
    assert (test.blocks, test.e_better, test.e_worse, test.e_not_worse) == (0, 1.0, 1.0, 1.0)


def test_the_side_that_waits_loses_its_oldest_outcomes_so_that_both_are_of_the_same_time() -> None:
    test = TwoSamples(BlockShape(1, 1))
    for _ in range(1000):
        test.add(candidate=False, success=True)  # long before any outcome of the candidate
    for _ in range(50):
        test.add(candidate=False, success=False)
    for _ in range(50):
        test.add(candidate=True, success=False)
    assert test.blocks == 50
    assert test.e_worse <= 1


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_extreme_rates_and_very_long_runs_stay_finite(rate: float) -> None:
    test = TwoSamples(BlockShape(1, 1), margin=0.05)
    for _ in range(2000):
        test.add(candidate=False, success=bool(rate))
        test.add(candidate=True, success=not rate)
    assert min(test.e_better, test.e_worse, test.e_not_worse) >= 0
    assert max(test.e_better, test.e_worse, test.e_not_worse) < float("inf")


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_that_leaves_one_side_alone_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        BlockShape.of(share)


def proofs(difference: float, share: float, runs: int, episodes: int, base: float = 0.5) -> tuple[int, int]:
    """How many runs prove at 0.05 that the candidate is better, and that it is worse."""
    better = worse = 0
    for seed in range(runs):
        draw, test = random.Random(seed), TwoSamples(BlockShape.of(share))
        for _ in range(episodes):
            candidate = draw.random() < share
            test.add(candidate=candidate, success=draw.random() < base + difference * candidate)
            if test.e_better >= 20 or test.e_worse >= 20:
                better, worse = better + (test.e_better >= 20), worse + (test.e_worse >= 20)
                break
    return better, worse


def test_equal_sides_are_rarely_told_apart_whenever_one_looks() -> None:
    better, worse = proofs(0.0, 0.5, runs=40, episodes=600)
    assert better <= 2
    assert worse <= 2


def test_fifteen_points_less_are_proved_within_some_thousand_episodes() -> None:
    assert proofs(-0.15, 0.5, runs=15, episodes=3000) == (0, 15)
