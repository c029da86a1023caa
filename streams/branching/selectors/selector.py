"""The interface of selectors, and the allocation of a budget by their weights. Branching calls it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol


@dataclass(frozen=True, slots=True)
class Situation:
    """A state that could be branched.

    `step` counts from 0 to `steps` - 1, the episode's length. `negative_log_likelihood` is the policy's world-model
    loss on what the recorded action led to, in nats per token; None where it was not asked for.
    """

    step: int
    steps: int
    fingerprint: str
    negative_log_likelihood: float | None = None


class Selector(Protocol):
    """Weighs states; the more weight, the more of the budget."""

    name: ClassVar[str]
    needs_likelihoods: ClassVar[bool]

    def weigh(self, situations: Sequence[Situation]) -> list[float]:
        """A weight of at least 0 for each situation of one episode. Called once for each episode."""
        ...


def allocate(weights: Sequence[float], budget: int, most: int) -> list[int]:
    """Return how many of `budget` branches each state gets: in proportion to its weight, and never more than `most`.

    One branch after the other goes where the weight for each branch so far is largest (D'Hondt's method), so that more
    budget never takes a branch from a state.

    >>> allocate([3.0, 1.0, 0.0], budget=4, most=8)
    [3, 1, 0]
    >>> allocate([3.0, 1.0, 0.0], budget=10, most=4)
    [4, 4, 0]
    """
    given = [0] * len(weights)
    for _ in range(budget):
        open_states = [state for state, weight in enumerate(weights) if weight > 0 and given[state] < most]
        if not open_states:
            break
        given[max(open_states, key=lambda state: (weights[state] / (given[state] + 1), -state))] += 1
    return given
