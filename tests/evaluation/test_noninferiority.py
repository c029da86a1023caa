"""The tests of non-inferiority against their source, a numeric maximisation, and simulation."""

from math import inf, log

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from evaluation.noninferiority import e_value, power, tango_test, tasks_for_power


def test_the_score_test_gives_the_published_example() -> None:
    z = norm.isf(tango_test(tasks=44, wins=0, losses=1, margin=0.1))
    assert z == pytest.approx(1.709, abs=0.0005)


@pytest.mark.parametrize(
    ("tasks", "wins", "losses", "margin"), [(100, 8, 5, 0.02), (400, 30, 41, 0.1), (60, 0, 0, 0.05)]
)
def test_the_score_test_uses_the_likeliest_share_of_losses(tasks: int, wins: int, losses: int, margin: float) -> None:
    def unlikely(loss: float) -> float:
        win = loss - margin
        terms = [(wins, win), (losses, loss), (tasks - wins - losses, 1 - win - loss)]
        return -sum(count * log(share) if share > 0 else (-inf if count else 0.0) for count, share in terms)

    found = minimize_scalar(unlikely, bounds=(margin, (1 + margin) / 2), method="bounded", options={"xatol": 1e-10})
    variance = tasks * (2 * found.x - margin - margin**2)
    expected = norm.sf((wins - losses + tasks * margin) / variance**0.5)
    assert tango_test(tasks, wins, losses, margin) == pytest.approx(expected, rel=1e-3)


def test_at_the_margin_both_tests_together_prove_no_more_often_than_alpha() -> None:
    """Looking at the e-process after each block of 32, and at the score test once, at half of alpha each."""
    generator, alpha, margin, runs, wrong = np.random.default_rng(5), 0.05, 0.02, 600, 0
    for _ in range(runs):
        results = generator.choice([1, -1, 0], p=[0.05, 0.07, 0.88], size=400)
        wins, losses = int((results == 1).sum()), int((results == -1).sum())
        looks = range(32, 401, 32)
        counts = [(end, int((results[:end] == 1).sum()), int((results[:end] == -1).sum())) for end in looks]
        early = any(e_value(*each, margin) >= 2 / alpha for each in counts)
        wrong += early or tango_test(400, wins, losses, margin) <= alpha / 2
    assert wrong / runs <= alpha + 2 * (alpha / runs) ** 0.5


def test_a_clear_gain_proves_itself_early() -> None:
    assert e_value(tasks=64, wins=16, losses=3, margin=0.02) >= 40
    assert e_value(tasks=64, wins=4, losses=4, margin=0.02) < 2
    assert e_value(tasks=10**6, wins=10**6, losses=0, margin=0.02) < inf


def test_the_power_is_what_simulation_finds() -> None:
    generator, runs = np.random.default_rng(2), 4000
    tasks = tasks_for_power(0.8, discordance=0.125, margin=0.05, alpha=0.05)
    drawn = generator.multinomial(tasks, [0.0625, 0.0625, 0.875], size=runs)
    proved = sum(tango_test(tasks, int(wins), int(losses), 0.05) <= 0.05 for wins, losses, _ in drawn)
    assert proved / runs == pytest.approx(power(tasks, 0.125, 0.05, 0.05), abs=0.04)
    assert power(0, 0.1, 0.02, 0.05) == 0.0


@pytest.mark.parametrize("counts", [(0, 0, 0), (10, 6, 5), (10, -1, 0)])
def test_counts_that_cannot_be_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="not results of"):
        tango_test(*counts, margin=0.02)
