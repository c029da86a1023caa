"""The sequential test: against the formulas it stands for, and simulated where nothing is to be proved."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.power import play
from evaluation.sequential import NOTHING, THETAS, Outcome, Rule, SequentialTest, Tally, outcomes
from evaluation.statistics import mcnemar_exact
from streams.errors import GateError

ALPHA = 0.05
HALVES = Rule.spending(ALPHA, graded=False)
GRADED = Rule.spending(ALPHA, graded=True)


def ended(results: list[float], rule: Rule = HALVES, *, is_last: bool = False) -> Outcome:
    test = SequentialTest(rule)
    test.add(results)
    return test.outcome(is_last=is_last)


@given(st.lists(st.sampled_from([-1, 0, 1]), max_size=60))
def test_evidence_is_the_mixture_over_theta_of_the_likelihood_ratios(results: list[int]) -> None:
    wins, losses = results.count(1), results.count(-1)
    mixture = sum((2 * theta) ** wins * (2 - 2 * theta) ** losses for theta in THETAS) / len(THETAS)
    tally = Tally.of(np.array(results, dtype=float))
    assert math.exp(tally.log_better()) == pytest.approx(mixture)
    assert math.exp(Tally.of_counts(len(results), losses, wins).log_worse()) == pytest.approx(mixture)


@given(st.lists(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), max_size=20), max_size=5))
def test_blocks_add_up_to_what_the_whole_list_gives(blocks: list[list[float]]) -> None:
    test, whole = SequentialTest(HALVES), [result for block in blocks for result in block]
    for block in blocks:
        test.add(block)
    assert test.tally.units == len(whole)
    assert test.tally.log_better() == pytest.approx(float(Tally.of(np.array(whole)).log_better()))
    assert test.outcome(is_last=True) is ended(whole, is_last=True)


@given(st.integers(0, 40), st.integers(0, 40))
def test_the_last_look_is_mcnemars_exact_test(wins: int, losses: int) -> None:
    rule = Rule(better=0.0, exact=ALPHA / 2, worse=0.0)
    proved = outcomes(Tally.of_counts(100, wins, losses), rule, is_last=True) == Outcome.BETTER
    assert proved == (mcnemar_exact(wins, losses) <= ALPHA / 2)


def test_the_exact_test_is_asked_at_the_last_unit_only() -> None:
    six_wins = [1.0] * 6 + [0.0] * 26
    assert ended(six_wins) is Outcome.CONTINUE
    assert ended(six_wins, is_last=True) is Outcome.BETTER


def test_nothing_ties_and_no_alpha_never_prove() -> None:
    assert ended([]) is Outcome.CONTINUE
    assert ended([], is_last=True) is Outcome.UNDECIDED
    assert ended([0.0] * 2000, is_last=True) is Outcome.UNDECIDED
    assert ended([1.0] * 1000, Rule.spending(0.0, graded=False), is_last=True) is Outcome.UNDECIDED


@pytest.mark.parametrize("result", [math.nan, math.inf, -math.inf, 1.01, 1e300])
def test_a_result_that_is_none_is_refused_and_not_counted(result: float) -> None:
    test = SequentialTest(GRADED)
    with pytest.raises(GateError, match="not from -1 to 1"):
        test.add([1.0] * 50 + [result])
    assert test.tally.units == 0


def test_a_graded_result_is_refused_where_wins_are_counted() -> None:
    with pytest.raises(GateError, match="graded"):
        ended([0.5])
    assert ended([0.5] * 60, GRADED) is Outcome.BETTER


@pytest.mark.parametrize("alpha", [math.nan, math.inf, -0.1, 1.0, 2.5])
def test_a_level_that_is_no_probability_is_refused(alpha: float) -> None:
    with pytest.raises(GateError, match="not a probability"):
        Rule.spending(alpha, graded=True)


def test_futility_needs_enough_units_and_never_promotes() -> None:
    rule = Rule.spending(ALPHA, graded=False, gain=0.05)
    assert ended([0.0] * 95, rule) is Outcome.CONTINUE
    assert ended([0.0] * 96, rule) is Outcome.FUTILE
    assert ended(([1.0] + [0.0] * 11) * 8, rule) is Outcome.CONTINUE


def test_a_clear_case_is_over_after_few_blocks() -> None:
    # 43 wins among 160 tasks, at the first alpha of LORD++.
    rule = Rule.spending(0.00134, graded=False, gain=0.05)
    test = SequentialTest(rule)
    order = np.random.default_rng(0).permutation([1.0] * 43 + [0.0] * 117)
    for block in range(3):
        test.add(order[32 * block : 32 * block + 32])
        if test.outcome() is not Outcome.CONTINUE:
            break
    assert test.outcome() is Outcome.BETTER
    assert ended([-1.0] * 15 + [0.0] * 17, rule) is Outcome.WORSE


@pytest.mark.parametrize("discordant", [0.02, 0.19, 0.5])
def test_an_equal_candidate_is_promoted_and_rejected_no_more_often_than_was_spent(discordant: float) -> None:
    runs, random = 4000, np.random.default_rng(1)

    def draw(_: int, count: int) -> Tally:
        wins = random.binomial(count, discordant / 2, runs)
        return Tally.of_counts(count, wins, random.binomial(count - wins, discordant / 2 / (1 - discordant / 2)))

    outcome, _ = play(draw, Rule.spending(ALPHA, graded=False), 640)
    assert np.mean(outcome == Outcome.BETTER) <= ALPHA + 3 * math.sqrt(ALPHA / runs)
    assert np.mean(outcome == Outcome.WORSE) <= ALPHA + 3 * math.sqrt(ALPHA / runs)


def test_families_that_vote_together_fool_bets_on_their_means_no_more_often() -> None:
    # 47 families of 4 variants, of which three in ten have variants that differ.
    runs, random = 4000, np.random.default_rng(2)

    def draw(_: int, count: int) -> Tally:
        shared = random.choice([-1.0, 0.0, 1.0], (count, runs), p=[0.1, 0.8, 0.1])
        own = random.choice([-1.0, 0.0, 1.0], (4, count, runs), p=[0.1, 0.8, 0.1])
        return Tally.of(np.where(random.random((4, count, runs)) < 0.9, shared, own).mean(axis=0))

    outcome, _ = play(draw, GRADED, 47)
    assert np.mean(outcome == Outcome.BETTER) <= ALPHA


def test_no_tally_is_the_tally_of_nothing() -> None:
    assert (NOTHING.units, NOTHING.total, float(NOTHING.mean())) == (0, 0, 0.0)
    with pytest.raises(GateError, match="hold tasks out"):
        play(lambda start, count: NOTHING, HALVES, 0)
