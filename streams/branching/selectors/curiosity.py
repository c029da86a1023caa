"""States at which the policy predicts worst what its actions lead to.

The prediction error as a bonus, after *Curiosity-driven Exploration by Self-supervised Prediction* (arXiv 1705.05363),
with the policy itself as the world model: its loss on the next state that was recorded.
"""

from collections.abc import Sequence
from typing import ClassVar

from streams.branching.selectors.selector import Situation


class Curiosity:
    """Weighs by negative log-likelihood. A state of which it is not known counts as much as the others do on average.

    >>> Curiosity().weigh([Situation(0, 2, "a", 0.5), Situation(1, 2, "b", 2.0)])
    [0.5, 2.0]
    """

    name: ClassVar = "curiosity"
    needs_likelihoods: ClassVar = True

    def weigh(self, situations: Sequence[Situation]) -> list[float]:
        known = [
            situation.negative_log_likelihood
            for situation in situations
            if situation.negative_log_likelihood is not None
        ]
        mean = sum(known) / len(known) if known else 1.0
        return [
            mean if situation.negative_log_likelihood is None else situation.negative_log_likelihood
            for situation in situations
        ]
