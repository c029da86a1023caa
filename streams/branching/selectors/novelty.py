"""States that were seldom branched before: counts over fingerprints.

A count-based bonus of 1/(1 + n), after *Unifying Count-Based Exploration and Intrinsic Motivation* (arXiv 1606.01868),
with exact counts in place of a density model.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar

from streams.branching.selectors.selector import Situation

_REMEMBERED = 100_000


class Novelty:
    """Remembers how often it was asked about each state, for the latest 100,000 of them.

    >>> novelty = Novelty()
    >>> novelty.weigh([Situation(0, 2, "start"), Situation(1, 2, "a")])
    [1.0, 1.0]
    >>> novelty.weigh([Situation(0, 2, "start"), Situation(1, 2, "b")])
    [0.5, 1.0]
    """

    name: ClassVar = "novelty"
    needs_likelihoods: ClassVar = False

    def __init__(self) -> None:
        self._seen: OrderedDict[str, int] = OrderedDict()

    def weigh(self, situations: Sequence[Situation]) -> list[float]:
        weights = [1 / (1 + self._seen.get(situation.fingerprint, 0)) for situation in situations]
        for situation in situations:
            self._seen[situation.fingerprint] = self._seen.pop(situation.fingerprint, 0) + 1
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return weights
