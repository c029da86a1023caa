"""The statistics that gates rest on. Pure functions; the gates and the reports call them."""

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binom, binomtest


@dataclass(frozen=True, slots=True)
class Interval:
    """Bounds of a confidence interval, both inclusive."""

    low: float
    high: float


def mcnemar_exact(wins: int, losses: int) -> float:
    """One-sided p-value of McNemar's exact test: the chance of at least this many wins if both were equally good.

    Of the paired tasks only the discordant ones speak: a *win* is a task that only the one under test solves, a *loss*
    a task that only the other solves. If both were equally good, wins would be binomial with probability one half.
    No discordant pair is not evidence: 1.0. Swap the arguments to test the other direction.

    Source: McNemar (1947), Psychometrika 12, 153-157; the exact form as in Agresti, Categorical Data Analysis, 10.1.

    >>> round(mcnemar_exact(wins=9, losses=1), 4)
    0.0107
    >>> mcnemar_exact(wins=0, losses=0)
    1.0
    """
    if wins < 0 or losses < 0:
        raise ValueError(f"counts cannot be negative: wins={wins}, losses={losses}")
    return float(binom.sf(wins - 1, wins + losses, 0.5))


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for a success rate; it stays inside [0, 1] and is sound for rates near 0 and 1.

    Source: Wilson (1927), JASA 22, 209-212; recommended by Brown, Cai & DasGupta (2001), Statistical Science 16(2).

    >>> interval = wilson_interval(successes=0, trials=150)
    >>> interval.low, round(interval.high, 3)
    (0.0, 0.025)
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"not a success rate: {successes} of {trials}")
    interval = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of Holm's step-down procedure, in the order given.

    To act on those that are at most alpha keeps the chance of any wrong one at alpha or below, however they depend on
    each other.

    Source: Holm (1979), Scandinavian Journal of Statistics 6, 65-70.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted
