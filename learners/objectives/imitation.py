"""Imitation learning: do what the trusted actor did.

L = -sum log pi(a_i | s_i) over trusted steps. Source: *Agent Learning via Early Experience* (arXiv 2510.08558), the
baseline.
"""

from collections.abc import Sequence

from learners.objectives.objective import Example, Likelihood
from learners.packed_tree import Tree
from learners.packing import TreePacker, Weights
from learners.trajectories import Trajectory


class Imitation(Likelihood):
    name = "imitation"

    def examples(self, trajectories: Sequence[Trajectory]) -> list[Example]:
        return [Example(trajectory) for trajectory in trajectories if trajectory.steps and trajectory.success]

    def pack(self, example: Example, packer: TreePacker) -> Tree:
        return packer.pack(example.trajectory, Weights(actions=example.weight))
