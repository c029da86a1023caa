"""The losses of an update: a stage's objective, and its auxiliary ones with their weights.

Each objective draws trees of its own; the update's loss is the weighted sum of their mean losses. The trainer runs it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from learners.objectives import OBJECTIVES
from learners.objectives.objective import Objective
from learners.packed_tree import Tree
from learners.settings import Stage


@dataclass(frozen=True, slots=True)
class Term:
    """One objective of an update: its trees, and its `weight` in the sum."""

    objective: Objective
    weight: float
    trees: tuple[Tree, ...]

    @property
    def size(self) -> float:
        return sum(map(self.objective.size, self.trees))


def objectives_of(stage: Stage) -> list[tuple[Objective, float]]:
    """The stage's objective with weight 1, and its auxiliary ones with theirs."""
    auxiliary = [(OBJECTIVES[name], weight) for name, weight in stage.auxiliary.items()]
    return [(OBJECTIVES[stage.objective], 1.0), *auxiliary]


def updates_of(stage: Stage, trees_of: Callable[[Objective], Iterator[list[Tree]]]) -> Iterator[list[Term]]:
    """Endless updates. Trees of size 0, of which nothing counts, are dropped; so are objectives without any other."""
    sources = [(objective, weight, trees_of(objective)) for objective, weight in objectives_of(stage)]
    while True:
        terms = []
        for objective, weight, source in sources:
            trees = tuple(tree for tree in next(source) if objective.size(tree))
            if trees:
                terms.append(Term(objective, weight, trees))
        yield terms
