"""Implicit world modelling: predict what each action leads to, the actor's own and the alternatives.

L = -sum log pi(s_i^j | s_i, a_i^j) over branches and trusted transitions. The next state is the user message that
answers the action, so the role's own header marks where the target begins, and the policy, which always continues an
assistant header, does not start to speak as the environment. Source: *Agent Learning via Early Experience*
(arXiv 2510.08558), section on implicit world modelling.
"""

from learners.packing import Tree, TreePacker, Weights
from learners.trajectories import Trajectory


class WorldModel:
    name = "world_model"

    def applies(self, trajectory: Trajectory) -> bool:
        return bool(trajectory.branches)

    def pack(self, trajectory: Trajectory, packer: TreePacker) -> Tree:
        return packer.pack(trajectory, Weights(observations=1.0, branch_observations=1.0))
