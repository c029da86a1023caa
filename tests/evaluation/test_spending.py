"""LORD++: its shares, its bound on what is spent, and what it promises of the promotions."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import gammaincc

from evaluation.spending import SpentAlpha, allowed, lord, share


def spent(promoted: list[bool], alpha: float = 0.05) -> list[SpentAlpha]:
    history: list[SpentAlpha] = []
    for is_promoted in promoted:
        history.append(SpentAlpha(lord(history, alpha), is_promoted))
    return history


def test_the_shares_of_a_wealth_are_no_more_than_the_whole() -> None:
    # They decrease from the third on, so the sum of the rest is at most the integral, 2 * Gamma(4, sqrt(log n)) * c.
    last = 20_000
    rest = 12 * gammaincc(4, math.sqrt(math.log(last))) * share(1) / math.log(2)
    assert 0.97 < math.fsum(share(number) for number in range(1, last + 1)) + rest <= 1
    assert share(2) > share(3) > share(4) > share(100) > 0


def test_the_first_gates_spend_what_the_procedure_says() -> None:
    history = spent([False, False, True, False])
    expected = [0.025 * share(1), 0.025 * share(2), 0.025 * share(3), 0.025 * share(4) + 0.025 * share(1)]
    assert [gate.alpha for gate in history] == pytest.approx(expected)
    history = spent([True, True, False])
    assert history[2].alpha == pytest.approx(0.025 * share(3) + 0.025 * share(2) + 0.05 * share(1))


def test_alpha_shrinks_without_promotions_and_never_ends() -> None:
    alphas = [gate.alpha for gate in spent([False] * 300)]
    assert all(later < earlier for earlier, later in pairwise(alphas))
    assert alphas[-1] > 1e-7


@given(st.lists(st.booleans(), max_size=120))
def test_no_history_spends_more_than_is_allowed(promoted: list[bool]) -> None:
    for length, _ in enumerate(promoted, start=1):
        history = spent(promoted[:length])
        assert sum(gate.alpha for gate in history) <= allowed(sum(promoted[: length - 1])) + 1e-12


@given(st.lists(st.tuples(st.floats(0, 0.3), st.booleans()), max_size=30))
def test_what_was_reserved_under_other_settings_counts(given_out: list[tuple[float, bool]]) -> None:
    history = [SpentAlpha(*gate) for gate in given_out]
    before, promotions = sum(gate.alpha for gate in history), sum(gate.is_promoted for gate in history)
    assert lord(history) == 0 or before + lord(history) <= allowed(promotions) + 1e-12


def test_few_of_the_promotions_are_wrong() -> None:
    # 9 of 10 candidates are equal; a good one is proved with probability 0.9. Valid p-values otherwise.
    random, shares = np.random.default_rng(3), []
    for _ in range(200):
        history: list[SpentAlpha] = []
        wrong = 0
        for _ in range(60):
            is_good, alpha = random.random() < 0.1, lord(history)
            is_promoted = bool(random.random() < (0.9 if is_good else alpha))
            wrong += is_promoted and not is_good
            history.append(SpentAlpha(alpha, is_promoted))
        shares.append(wrong / max(1, sum(gate.is_promoted for gate in history)))
    assert np.mean(shares) <= 0.05
