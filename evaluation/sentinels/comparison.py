"""Comparisons of the candidate's rates with the champion's.

Actions of one episode are alike, and variants of one task too, so that counting actions as independent would find
differences where there are none: the standard errors here are those of families of tasks.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import TypeAlias

from scipy.stats import hypergeom, norm

from evaluation.rollouts import Pair
from ratchet_client.events import family

Count: TypeAlias = tuple[float, float]
"""A part and its whole, such as the invalid actions of an episode and all of them."""

_LEAST_EACH = 5


@dataclass(frozen=True, slots=True)
class Difference:
    """Two rates, and how many standard errors the candidate's is above the champion's."""

    candidate: float
    champion: float
    z: float

    @property
    def increase(self) -> float:
        return self.candidate - self.champion

    def exceeds(self, more: float, z: float) -> bool:
        """Return whether the rate rose by more than `more`, and surely so."""
        return self.increase > more and self.z > z


def rate(counts: Iterable[Count]) -> float | None:
    """The sum of the parts over the sum of the wholes; None where there is nothing."""
    parts, wholes = (math.fsum(each) for each in zip(*counts, strict=True)) if (counts := list(counts)) else (0, 0)
    return parts / wholes if wholes > 0 else None


def paired_difference(
    pairs: Sequence[Pair], candidate: Sequence[Count], champion: Sequence[Count]
) -> Difference | None:
    """The difference of two ratios on the same tasks. None where a side has nothing to count.

    By linearisation, with families of tasks as clusters: Cochran, Sampling Techniques (1977), 6.4 and 9A.

    >>> from evaluation.rollouts import Rollout
    >>> from ratchet_client.events import Task
    >>> def pair(n):
    ...     played = Rollout(str(n), True, 1.0, 4, 0, ())
    ...     return Pair(Task(environment="x", task_id=str(n)), played, played)
    >>> found = paired_difference([pair(n) for n in range(4)], [(1, 4), (0, 4), (1, 4), (0, 4)], [(0, 4)] * 4)
    >>> found.increase, round(found.z, 3)
    (0.125, 1.732)
    """
    families: dict[str, list[float]] = {}
    for pair, own, other in zip(pairs, candidate, champion, strict=True):
        sums = families.setdefault(family(pair.task.task_id), [0.0] * 4)
        for place, value in enumerate((*own, *other)):
            sums[place] += value
    rows = list(families.values())
    own_rate, other_rate = (rate((row[place], row[place + 1]) for row in rows) for place in (0, 2))
    if own_rate is None or other_rate is None:
        return None
    own_mean, other_mean = (fmean(row[place] for row in rows) for place in (1, 3))
    residuals = [(row[0] - own_rate * row[1]) / own_mean - (row[2] - other_rate * row[3]) / other_mean for row in rows]
    error = math.sqrt(variance(residuals) / len(rows)) if len(rows) > 1 else math.inf
    return Difference(own_rate, other_rate, _in_errors(own_rate - other_rate, error))


def difference_of_means(candidate: Sequence[float], champion: Sequence[float]) -> Difference | None:
    """The difference of two means, with a pooled variance. None where a side has fewer than five."""
    if min(len(candidate), len(champion)) < _LEAST_EACH:
        return None
    own, other = fmean(candidate), fmean(champion)
    degrees = len(candidate) + len(champion) - 2
    pooled = ((len(candidate) - 1) * variance(candidate) + (len(champion) - 1) * variance(champion)) / degrees
    error = math.sqrt(pooled * (1 / len(candidate) + 1 / len(champion)))
    return Difference(own, other, _in_errors(own - other, error))


def surely_more(hits: int, of: int, other_hits: int, other_of: int, z: float) -> bool:
    """Return whether `hits` of `of` are surely more than `other_hits` of `other_of`.

    By Fisher's exact test, at the p-value of `z` standard errors.

    >>> surely_more(8, 40, 0, 40, z=3), surely_more(8, 40, 6, 40, z=3)
    (False, False)
    >>> surely_more(12, 40, 0, 40, z=3)
    True
    """
    return bool(hypergeom.sf(hits - 1, of + other_of, hits + other_hits, of) < norm.sf(z))


def _in_errors(difference: float, error: float) -> float:
    if error > 0:
        return difference / error
    return math.copysign(math.inf, difference) if difference else 0.0
