"""A test of two streams of successes that may be looked at after every outcome. Pure; `evaluation/canary.py` uses it.

Champion and candidate answer different episodes, so nothing is paired, and one of them answers more. Outcomes are put
into blocks of a fixed number from each side. For a block the e-variable is the likelihood under two rates over the
likelihood under the one rate nearest to them that the null hypothesis allows; its mean is at most 1 under every rate of
the null hypothesis, also if the rate changes from block to block. So the product over blocks ever comes to 1/alpha with
a probability of at most alpha, whenever one looks.

Source: Turner, Ly & Grünwald, "Generic E-Variables for Exact Sequential k-Sample Tests" (2106.02693), and Turner &
Grünwald 2302.11401 for null hypotheses with a margin.
"""

import math
from collections import deque
from dataclasses import dataclass

from scipy.optimize import brentq

EFFECTS = (0.04, 0.08, 0.16, 0.32)
"""The differences in success, as shares, that the alternatives are made of; the e-value is the mean over them."""

_LEAST_RATE = 0.001
# Of one side so many blocks may wait for the other: older outcomes are left out, or sides of different days would meet.
_WAITING_BLOCKS = 50
_MOST_LOG = 500.0


@dataclass(frozen=True, slots=True)
class BlockShape:
    """The number of outcomes of each side that make a block.

    >>> BlockShape.of(0.1), BlockShape.of(0.5), BlockShape.of(0.75)
    (BlockShape(champion=9, candidate=1), BlockShape(champion=1, candidate=1), BlockShape(champion=1, candidate=3))
    """

    champion: int
    candidate: int

    @classmethod
    def of(cls, share: float) -> "BlockShape":
        """The shape where the candidate answers `share` of the episodes. Raises `ValueError` outside ]0, 1[."""
        if not 0 < share < 1:
            raise ValueError(f"a share of {share} leaves nothing to compare")
        odds = (1 - share) / share
        return cls(max(1, round(odds)), 1) if odds >= 1 else cls(1, max(1, round(1 / odds)))

    @property
    def size(self) -> int:
        return self.champion + self.candidate


@dataclass(frozen=True, slots=True)
class _Bet:
    """Two rates, and the rates that the null hypothesis has nearest to them."""

    champion: float
    candidate: float
    null_champion: float
    null_candidate: float

    def log_ratio(self, shape: BlockShape, champion: int, candidate: int) -> float:
        """The logarithm of the e-variable of a block with so many successes of the two sides."""
        return _log_ratio(self.champion, self.null_champion, champion, shape.champion) + _log_ratio(
            self.candidate, self.null_candidate, candidate, shape.candidate
        )


class TwoSamples:
    """The evidence so far about which of two sides succeeds more often.

    `e_better` is against "the candidate is at most as good as the champion", `e_worse` against "it is at least as
    good", `e_not_worse` against "it is worse by `margin` or more"; without a margin the last stays 1. The rate that the
    alternatives lie around is that of all blocks before.

    >>> test = TwoSamples(BlockShape(1, 1))
    >>> for _ in range(20):
    ...     test.add(candidate=True, success=False)
    ...     test.add(candidate=False, success=True)
    >>> test.blocks, test.e_worse > 1000, test.e_better < 0.2
    (20, True, True)
    """

    def __init__(self, shape: BlockShape, margin: float = 0.0) -> None:
        if not 0 <= margin < 1:
            raise ValueError(f"a margin is from 0 to 1, not {margin}")
        self.shape = shape
        self.blocks = 0
        self._margin = margin
        self._waiting = (
            deque[bool](maxlen=_WAITING_BLOCKS * shape.champion),
            deque[bool](maxlen=_WAITING_BLOCKS * shape.candidate),
        )
        self._successes = 0
        self._better = [0.0] * len(EFFECTS)
        self._worse = [0.0] * len(EFFECTS)
        self._not_worse = 0.0

    def add(self, *, candidate: bool, success: bool) -> None:
        """Take in one outcome, in the order in which outcomes came."""
        self._waiting[candidate].append(success)
        champion, other = self._waiting
        if len(champion) >= self.shape.champion and len(other) >= self.shape.candidate:
            self._add_block(
                sum(champion.popleft() for _ in range(self.shape.champion)),
                sum(other.popleft() for _ in range(self.shape.candidate)),
            )

    @property
    def e_better(self) -> float:
        return _mean(self._better)

    @property
    def e_worse(self) -> float:
        return _mean(self._worse)

    @property
    def e_not_worse(self) -> float:
        return math.exp(min(_MOST_LOG, self._not_worse))

    def _add_block(self, champion: int, candidate: int) -> None:
        rate = (self._successes + 0.5) / (self.blocks * self.shape.size + 1)
        for number, effect in enumerate(EFFECTS):
            self._better[number] += _apart(rate, effect, self.shape).log_ratio(self.shape, champion, candidate)
            self._worse[number] += _apart(rate, -effect, self.shape).log_ratio(self.shape, champion, candidate)
        if self._margin:
            self._not_worse += _equal(rate, self._margin, self.shape).log_ratio(self.shape, champion, candidate)
        self.blocks += 1
        self._successes += champion + candidate


def _apart(rate: float, difference: float, shape: BlockShape) -> _Bet:
    """The bet that the candidate's rate is the champion's and the difference, against equal rates."""
    champion = _inside(rate - difference * shape.candidate / shape.size)
    candidate = _inside(rate + difference * shape.champion / shape.size)
    null = (shape.champion * champion + shape.candidate * candidate) / shape.size
    return _Bet(champion, candidate, null, null)


def _equal(rate: float, margin: float, shape: BlockShape) -> _Bet:
    """The bet that both have one rate, against a candidate that is worse by the margin."""
    rate = _inside(rate)

    def slope(champion: float) -> float:
        """The derivative of the divergence of the null hypothesis from the bet, in the champion's rate."""
        candidate = champion - margin
        return shape.champion * (champion - rate) / (champion * (1 - champion)) + shape.candidate * (
            candidate - rate
        ) / (candidate * (1 - candidate))

    least, most = max(rate, margin) + 1e-9, min(rate + margin, 1.0) - 1e-9
    null = float(brentq(slope, least, most))
    return _Bet(rate, rate, null, null - margin)


def _inside(rate: float) -> float:
    return min(1 - _LEAST_RATE, max(_LEAST_RATE, rate))


def _log_ratio(rate: float, null: float, successes: int, trials: int) -> float:
    return successes * math.log(rate / null) + (trials - successes) * math.log((1 - rate) / (1 - null))


def _mean(logs: list[float]) -> float:
    return sum(math.exp(min(_MOST_LOG, each)) for each in logs) / len(logs)
