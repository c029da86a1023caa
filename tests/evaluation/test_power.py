import pytest
from scipy.stats import binom

from evaluation.agreement import Agreement
from evaluation.power import ASSUMED, Expected, power
from evaluation.sequential import Rule
from evaluation.statistics import mcnemar_exact

FIRST_ALPHA = 0.001338

FIFTY = Agreement(both=10, first_only=5, second_only=5, neither=30)


def rule(alpha: float) -> Rule:
    return Rule.spending(alpha, graded=False, gain=0.05)


def test_the_exact_test_alone_has_the_power_that_its_distribution_says() -> None:
    win, loss = ASSUMED.rates(0.05)
    exact = sum(
        binom.pmf(discordant, 187, win + loss) * binom.pmf(wins, discordant, win / (win + loss))
        for discordant in range(188)
        for wins in range(discordant + 1)
        if mcnemar_exact(wins, discordant - wins) <= 0.05
    )
    assert power(Rule(better=0.0, exact=0.05, worse=0.0), ASSUMED, 0.05, 187) == pytest.approx(exact, abs=0.03)


def test_power_grows_with_tasks_alpha_and_gain() -> None:
    assert power(rule(FIRST_ALPHA), ASSUMED, 0.05, 0) == 0
    few, some, many = (power(rule(FIRST_ALPHA), ASSUMED, 0.05, units) for units in (187, 1000, 2000))
    assert few < 0.1 < some < 0.85 < many
    assert few < power(rule(0.05), ASSUMED, 0.05, 187)
    assert few < 0.5 < power(rule(FIRST_ALPHA), ASSUMED, 0.25, 187)


def test_shares_of_wins_and_losses_are_of_the_gain_and_are_probabilities() -> None:
    win, loss = ASSUMED.rates(0.05)
    assert win - loss == pytest.approx(0.05)
    assert win + loss == pytest.approx(0.186, abs=0.001)
    for base in (0.0, 0.5, 1.0):
        for phi in (-1.0, 0.0, 1.0):
            assert all(0 <= share <= 1 for share in Expected(base, phi).rates(0.05))
            assert sum(Expected(base, phi).rates(0.05)) <= 1


def test_what_gates_played_is_what_is_expected_once_it_is_enough() -> None:
    assert Expected.measured(FIFTY) == ASSUMED
    measured = Expected.measured(sum([FIFTY] * 4, Agreement()))
    assert (measured.base, measured.tasks) == (0.3, 200)
    assert measured.phi == pytest.approx((0.2 - 0.09) / 0.21)
    assert Expected.measured(Agreement(neither=200)) == Expected(0.0, ASSUMED.phi, 200)
