"""The probability of a wrong promotion that each gate of an installation may spend, so that many gates stay honest.

Pure; `daemon/registry/ledger.py` keeps the account and asks here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

# That of the R package onlineFDR: the shares of all gates there could be sum to 0.976.
_NORMALISER = 0.07720838


@dataclass(frozen=True, slots=True)
class SpentAlpha:
    """A gate that `alpha` was reserved for, played or not, and whether its candidate was promoted."""

    alpha: float
    is_promoted: bool


@cache
def share(number: int) -> float:
    """The share of a wealth that is spent on the gate of that number after it was earned, 1 for the first.

    Decreases like log(n) / (n · exp(√log n)), after Javanmard & Montanari (2018), Annals of Statistics 46(2), 526-554.
    """
    return _NORMALISER * math.log(max(number, 2)) / (number * math.exp(math.sqrt(math.log(number))))


def lord(history: Sequence[SpentAlpha], alpha: float = 0.05) -> float:
    """Return the alpha of the next gate by LORD++: of all promotions a share of `alpha` at most is wrong, on average.

    `history` has every gate that alpha was reserved for, oldest first. The first wealth is half of `alpha`, the first
    promotion earns the other half, each later one `alpha`; a gate gets a share of each wealth, the smaller the longer
    ago it was earned. Never more than `allowed` leaves, so that gates whose alpha was reserved under other settings
    count as well.

    Source: Ramdas, Yang, Wainwright & Jordan, Online control of the false discovery rate with decaying memory, NeurIPS
    2017 (LORD++); its first wealth w0 is alpha / 2.

    >>> round(lord([]), 6)
    0.001338
    >>> lord([SpentAlpha(0.001338, True)]) > lord([SpentAlpha(0.001338, False)])
    True
    """
    number = len(history) + 1
    promotions = [place for place, gate in enumerate(history, start=1) if gate.is_promoted]
    wealths = [alpha / 2, alpha / 2, *(alpha for _ in promotions[1:])]
    due = sum(share(number - place) * wealth for place, wealth in zip((0, *promotions), wealths, strict=False))
    left = allowed(len(promotions), alpha) - math.fsum(gate.alpha for gate in history)
    return max(0.0, min(due, left))


def allowed(promotions: int, alpha: float = 0.05) -> float:
    """The sum of the alphas that LORD++ never exceeds after so many promotions.

    >>> allowed(0), allowed(1), allowed(3)
    (0.025, 0.05, 0.15000000000000002)
    """
    return alpha / 2 if promotions == 0 else alpha * promotions
