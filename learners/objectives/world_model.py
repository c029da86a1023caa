"""Implicit world modelling: predict what each action leads to, the actor's own and the alternatives.

L = -sum log pi(s_i^j | s_i, a_i^j) over branches and trusted transitions. The next state is the user message that
answers the action, so the role's own header marks where the target begins, and the policy, which always continues an
assistant header, does not start to speak as the environment. Source: *Agent Learning via Early Experience*
(arXiv 2510.08558), section on implicit world modelling.
"""

from collections.abc import Sequence

from learners.objectives.objective import Example, Likelihood
from learners.packed_tree import Tree
from learners.packing import TreePacker, Weights
from learners.trajectories import Trajectory


class WorldModel(Likelihood):
    name = "world_model"

    def examples(self, trajectories: Sequence[Trajectory]) -> list[Example]:
        return [Example(trajectory) for trajectory in trajectories if trajectory.branches]

    def pack(self, example: Example, packer: TreePacker) -> Tree:
        return packer.pack(example.trajectory, Weights(observations=example.weight, branch_observations=example.weight))
