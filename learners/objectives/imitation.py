"""Imitation learning: do what the trusted actor did.

L = -sum log pi(a_i | s_i) over trusted steps. Source: *Agent Learning via Early Experience* (arXiv 2510.08558), the
baseline. With the policy's own verified successes among the trusted episodes this is rejection sampling as well.
"""

from learners.packing import Tree, TreePacker, Weights
from learners.trajectories import Trajectory


class Imitation:
    name = "imitation"

    def applies(self, trajectory: Trajectory) -> bool:
        return bool(trajectory.steps)

    def pack(self, trajectory: Trajectory, packer: TreePacker) -> Tree:
        return packer.pack(trajectory, Weights(actions=1.0))
