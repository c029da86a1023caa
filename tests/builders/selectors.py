"""A selector whose choice a test can foretell."""

from collections.abc import Sequence
from typing import ClassVar

from streams.branching.selectors.selector import Situation


class Late:
    """Each state weighs twice as much as the one before it, so that one branch goes to the last state."""

    name: ClassVar = "late"
    needs_surprise: ClassVar = False

    def weigh(self, situations: Sequence[Situation]) -> list[float]:
        return [2.0**situation.step for situation in situations]
