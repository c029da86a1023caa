"""Every state alike, as the *Early Experience* paper has it."""

from collections.abc import Sequence
from typing import ClassVar

from streams.branching.selectors.selector import Situation


class Uniform:
    """The baseline that others must beat.

    >>> Uniform().weigh([Situation(0, 2, "a"), Situation(1, 2, "b")])
    [1.0, 1.0]
    """

    name: ClassVar = "uniform"
    needs_likelihoods: ClassVar = False

    def weigh(self, situations: Sequence[Situation]) -> list[float]:
        return [1.0] * len(situations)
