"""The base of all objectives: which trajectories one learns from, how they are packed, and what its loss is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from learners.packed_tree import Tree
from learners.packing import TreePacker
from learners.trajectories import Trajectory


@dataclass(frozen=True, slots=True)
class Example:
    """A trajectory as an objective learns from it; `weight` is a factor of its loss, such as an advantage.

    `replayed` says that another policy than the one that is trained from sampled it.
    """

    trajectory: Trajectory
    weight: float = 1.0
    replayed: bool = False


class Objective(Protocol):
    """One algorithm. The loss of an update is the sum of its trees' losses over the sum of their sizes."""

    name: str
    needs_reference: bool
    """True where the loss compares with the policy as it was when the stage began."""

    def examples(self, trajectories: Sequence[Trajectory]) -> list[Example]:
        """Return what can be learned from a snapshot's trajectories; none where nothing can."""
        ...

    def pack(self, example: Example, packer: TreePacker) -> Tree: ...

    def loss(self, tree: Tree, log_probabilities: torch.Tensor, reference: torch.Tensor | None) -> torch.Tensor:
        """Return the loss of a tree: a scalar, in nats.

        `log_probabilities` (counted tokens,) are the policy's of `tree.targets`; `reference` are those of the policy as
        it was when the stage began, None unless `needs_reference`.
        """
        ...

    def size(self, tree: Tree) -> float:
        """Return how much of an update the tree is: its counted tokens, weighed, or the number of its pairs."""
        ...


class Likelihood:
    """The loss of objectives that raise the likelihood of what they count: its mean negative log-likelihood."""

    needs_reference = False

    def loss(self, tree: Tree, log_probabilities: torch.Tensor, reference: torch.Tensor | None) -> torch.Tensor:
        return -(log_probabilities * tree.weights).sum()

    def size(self, tree: Tree) -> float:
        return float(tree.weights.sum())
