"""The end of an episode: where a failed one could still have been turned."""

from collections.abc import Sequence
from typing import ClassVar

from streams.branching.selectors.selector import Situation


class LastSteps:
    """Each state weighs twice as much as the one before it.

    >>> LastSteps().weigh([Situation(0, 3, "a"), Situation(1, 3, "b"), Situation(2, 3, "c")])
    [0.25, 0.5, 1.0]
    """

    name: ClassVar = "last_steps"
    needs_surprise: ClassVar = False

    def weigh(self, situations: Sequence[Situation]) -> list[float]:
        return [2.0 ** (situation.step + 1 - situation.steps) for situation in situations]
