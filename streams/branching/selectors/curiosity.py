"""States at which the policy foresees worst what its actions lead to.

The prediction error as a bonus, after *Curiosity-driven Exploration by Self-supervised Prediction* (arXiv 1705.05363),
with the policy itself as the world model: its loss on the next state that was recorded.
"""

from collections.abc import Sequence
from typing import ClassVar

from streams.branching.selectors.selector import Situation


class Curiosity:
    """Weighs by surprise. A state whose surprise is not known counts as much as the others do on average.

    >>> Curiosity().weigh([Situation(0, 2, "a", surprise=0.5), Situation(1, 2, "b", surprise=2.0)])
    [0.5, 2.0]
    """

    name: ClassVar = "curiosity"
    needs_surprise: ClassVar = True

    def weigh(self, situations: Sequence[Situation]) -> list[float]:
        known = [situation.surprise for situation in situations if situation.surprise is not None]
        mean = sum(known) / len(known) if known else 1.0
        return [mean if situation.surprise is None else situation.surprise for situation in situations]
