"""The sequential test that two adapters are compared by: an e-process, an exact test at the end, a stop for futility.

The gate `improvement`, its power and its Monte Carlo, and canaries all judge by this module. Everything in a `Tally`
may be an array, one entry a test, so that thousands of simulated gates run through the same lines as one real gate.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from streams.errors import GateError

Numbers: TypeAlias = NDArray[np.float64]

# Shares of wins among the tasks on which both differ. The mixture is near the best bet for all that lies between.
THETAS = (0.56, 0.60, 0.65, 0.72, 0.80)
_BETS: Numbers = 2 * np.array(THETAS) - 1
# Where McNemar's test may not be asked, no p-value is as low as this.
NEVER = 0.0


class Outcome(IntEnum):
    """The state of a test. All but `CONTINUE` end it; `UNDECIDED` is the end of the units without a proof."""

    CONTINUE = 0
    BETTER = 1
    WORSE = 2
    FUTILE = 3
    UNDECIDED = 4


@dataclass(frozen=True, slots=True)
class Rule:
    """Levels of a test, each a probability of error. `better` and `exact` may be arrays, one entry a test.

    The candidate is better when its e-process reaches 1 / `better`, or when McNemar's exact p-value at the last unit is
    at most `exact`; together they are wrong with probability `better` + `exact` at most. It is worse when the e-process
    of the other direction reaches 1 / `worse`. From `futile_after` units on the test stops where the mean result, and
    `errors` standard errors, stay below `gain` (None: never): that only ever ends a test without a proof.
    """

    better: float | Numbers
    exact: float | Numbers = NEVER
    worse: float = 0.05
    gain: float | None = None
    futile_after: int = 96
    errors: float = 2.1

    def __post_init__(self) -> None:
        for level in (self.better, self.exact, self.worse):
            _check(level)

    @classmethod
    def spending(cls, alpha: float | Numbers, *, graded: bool, worse: float = 0.05, gain: float | None = None) -> Self:
        """The rule that spends `alpha`: half on the e-process and half on the exact test at the end.

        Graded units, which have results between -1 and 1, have no exact test: the e-process has the whole of it.
        """
        _check(alpha)
        if graded:
            return cls(better=alpha, worse=worse, gain=gain)
        return cls(better=alpha / 2, exact=alpha / 2, worse=worse, gain=gain)


def _check(level: float | Numbers) -> None:
    # Written so that NaN is refused.
    if not np.all((np.asarray(level) >= 0) & (np.asarray(level) < 1)):
        raise GateError(f"{level!r} is not a probability of error: it must be from 0 to below 1")


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over the results of units, each from -1 (only the champion solved it) to 1 (only the candidate did).

    `better` and `worse` have, along a last axis, the logarithm of what the bets of each theta came to, in each
    direction: of the product of 1 + (2 theta - 1) x over the results x. For results of -1, 0 and 1 that is
    (2 theta)^wins (2 - 2 theta)^losses. While the candidate is no better on average, the expectation of that product
    never grows, so it reaches 1 / alpha with probability alpha at most (Ville's inequality), whenever one looks.

    Sources: Waudby-Smith & Ramdas, Estimating means of bounded random variables by betting, arXiv 2010.09686; Turner &
    Grünwald, Safe sequential testing and effect estimation in stratified count data, arXiv 2302.11401.
    """

    units: Any
    wins: Any
    losses: Any
    total: Any
    squares: Any
    better: Numbers
    worse: Numbers

    @classmethod
    def of(cls, results: Numbers) -> Self:
        """The tally of `results`; the first axis is that of the units."""
        bets = results[..., None] * _BETS
        return cls(
            units=np.full(results.shape[1:], len(results)),
            wins=(results > 0).sum(axis=0),
            losses=(results < 0).sum(axis=0),
            total=results.sum(axis=0),
            squares=(results**2).sum(axis=0),
            better=np.log1p(bets).sum(axis=0),
            worse=np.log1p(-bets).sum(axis=0),
        )

    @classmethod
    def of_counts(cls, units: Any, wins: Any, losses: Any) -> Self:
        """The tally of `units`, of which so many have the result 1 and so many -1, and the others 0."""
        wins, losses = np.asarray(wins), np.asarray(losses)
        up, down = np.log1p(_BETS), np.log1p(-_BETS)
        return cls(
            units=np.broadcast_to(np.asarray(units), wins.shape),
            wins=wins,
            losses=losses,
            total=wins - losses,
            squares=wins + losses,
            better=wins[..., None] * up + losses[..., None] * down,
            worse=losses[..., None] * up + wins[..., None] * down,
        )

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            units=self.units + other.units,
            wins=self.wins + other.wins,
            losses=self.losses + other.losses,
            total=self.total + other.total,
            squares=self.squares + other.squares,
            better=self.better + other.better,
            worse=self.worse + other.worse,
        )

    def log_better(self) -> Any:
        """The natural logarithm of the evidence that the candidate is better: the mean of the products."""
        return _log_mean(self.better)

    def log_worse(self) -> Any:
        """The same that it is worse."""
        return _log_mean(self.worse)

    def mean(self) -> Any:
        """The mean result of a unit."""
        return self.total / np.maximum(self.units, 1)

    def standard_error(self) -> Any:
        """Of that mean."""
        units = np.maximum(self.units, 1)
        return np.sqrt(np.maximum(self.squares / units - self.mean() ** 2, 0) / units)


def _log_mean(logs: Numbers) -> Any:
    most = logs.max(axis=-1)
    return most + np.log(np.exp(logs - most[..., None]).mean(axis=-1))


NOTHING = Tally.of_counts(0, 0, 0)


def outcomes(tally: Tally, rule: Rule, *, is_last: bool) -> Any:
    """The outcome of each test of `tally`, as numbers of `Outcome`. `is_last` says that no unit is left to play."""
    with np.errstate(divide="ignore"):
        is_better = tally.log_better() >= -np.log(rule.better)
        is_worse = tally.log_worse() >= -np.log(rule.worse)
    if is_last and np.any(np.asarray(rule.exact) > NEVER):
        is_better |= binom.sf(tally.wins - 1, tally.wins + tally.losses, 0.5) <= rule.exact
    is_futile = np.zeros_like(is_better)
    if rule.gain is not None:
        most = tally.mean() + rule.errors * tally.standard_error()
        is_futile = (tally.units >= rule.futile_after) & (most < rule.gain)
    return np.select(
        [is_worse, is_better, is_futile],
        [Outcome.WORSE, Outcome.BETTER, Outcome.FUTILE],
        Outcome.UNDECIDED if is_last else Outcome.CONTINUE,
    )


class SequentialTest:
    """One test under way: it is fed results of units and says at any time how it stands.

    >>> test = SequentialTest(Rule.spending(0.05, graded=False))
    >>> test.add([1] * 8 + [0] * 24)
    >>> test.outcome()
    <Outcome.CONTINUE: 0>
    >>> test.add([1] * 3)
    >>> test.outcome()
    <Outcome.BETTER: 1>
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.tally = NOTHING

    def add(self, results: Iterable[float]) -> None:
        """Take in the results of units, in the order in which they were played.

        Raises `GateError` for one that is not from -1 to 1, and, where the rule has an exact test, for one between
        -1, 0 and 1: none of them is taken in.
        """
        new = np.array(tuple(results), dtype=np.float64)
        if not np.all(np.abs(new) <= 1):
            raise GateError(f"a unit's result is not from -1 to 1: {new.tolist()}. Correct the scores it comes from.")
        if np.any(np.asarray(self.rule.exact) > NEVER) and not np.all(new == np.round(new)):
            raise GateError("a unit's result is between -1, 0 and 1, where wins are counted: judge it by a graded rule")
        self.tally = self.tally + Tally.of(new)

    def outcome(self, *, is_last: bool = False) -> Outcome:
        """Return how the test stands; with `is_last`, how it ends."""
        return Outcome(int(outcomes(self.tally, self.rule, is_last=is_last)))
