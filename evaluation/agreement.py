"""The agreement of two plays of the same tasks: φ of two adapters, and the flips of one that is played twice.

The plan of the gates assumes both (`ASSUMED_PHI`, `ASSUMED_FLIPS`); reports and `ratchet gate stats` show what real
gates measured beside that. Pure.
"""

from collections.abc import Iterable
from math import e, log, sqrt
from typing import Self

from evaluation.statistics import wilson_interval
from ratchet_client.settings import FrozenModel

ASSUMED_PHI = 0.54
"""Of a gate of this project with 70 discordant of 561 pairs; it fixes how many tasks a proof takes."""
ASSUMED_FLIPS = 0.03
"""The share of tasks on which two plays of one adapter differ."""


class Agreement(FrozenModel):
    """Pairs of plays, by who solved the task. They add up: the counts of several gates are those of all together."""

    both: int = 0
    first_only: int = 0
    second_only: int = 0
    neither: int = 0

    @classmethod
    def of(cls, pairs: Iterable[tuple[bool, bool]]) -> Self:
        """Count pairs of successes."""
        counts = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
        for first, second in pairs:
            counts[bool(first), bool(second)] += 1
        both, first_only, second_only, neither = counts.values()
        return cls(both=both, first_only=first_only, second_only=second_only, neither=neither)

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(
            both=self.both + other.both,
            first_only=self.first_only + other.first_only,
            second_only=self.second_only + other.second_only,
            neither=self.neither + other.neither,
        )

    @property
    def tasks(self) -> int:
        return self.both + self.first_only + self.second_only + self.neither

    @property
    def discordant(self) -> int:
        """Tasks that only one of the plays solved."""
        return self.first_only + self.second_only

    @property
    def discordance(self) -> float | None:
        """Their share; None without tasks."""
        return self.discordant / self.tasks if self.tasks else None

    @property
    def discordance_interval(self) -> tuple[float, float] | None:
        """Its 95% Wilson interval."""
        if not self.tasks:
            return None
        interval = wilson_interval(self.discordant, self.tasks)
        return interval.low, interval.high

    @property
    def phi(self) -> float | None:
        """Pearson's correlation of the two successes; None where one side solved all or none, so that it has no value.

        >>> round(Agreement(both=30, first_only=10, second_only=10, neither=50).phi, 3)
        0.583
        """
        first, second = self.both + self.first_only, self.both + self.second_only
        spread = first * (self.tasks - first) * second * (self.tasks - second)
        if not spread:
            return None
        return (self.both * self.neither - self.first_only * self.second_only) / sqrt(spread)


def overstatement(tasks: int, gates: int, promotions: int, discordance: float) -> float:
    """By how much success on a list may overstate the truth, as a share, with a probability of 95%.

    After `promotions` in `gates` gates on a list of `tasks`, whose pairs differ on a share of `discordance`: each
    sequence of promotions is one of at most (e·T/k)^k, and Hoeffding's bound holds for all of them at once.

    Source: Blum & Hardt (2015), arXiv 1502.04585; Dwork et al. (2015), Science 349.

    >>> round(overstatement(tasks=187, gates=50, promotions=1, discordance=0.125), 3)
    0.103
    """
    if tasks <= 0 or gates <= 0:
        return 1.0
    promoted = max(1, min(promotions, gates))
    bound = promoted * log(e * gates / promoted) + log(20)
    return min(1.0, sqrt(2 * discordance * bound / tasks))
