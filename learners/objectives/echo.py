"""Policy loss and observation loss in one forward pass over one tree, on the policy's own rollouts and trusted ones.

L = -sum log pi(a_i | s_i) - c * sum log pi(s_(i+1) | s_i, a_i): a success's actions and observations; of a failure only
the observations, since what it did is never imitated, and what it led to is true all the same. Source: ECHO (arXiv
2605.24517), here with likelihood of verified successes as the policy loss.
"""

from collections.abc import Sequence

from learners.objectives.objective import Example, Likelihood
from learners.packed_tree import Tree
from learners.packing import TreePacker, Weights
from learners.trajectories import Trajectory


class Echo(Likelihood):
    """`observations` is c, the weight of an observation's token beside 1 of an action's."""

    name = "echo"

    def __init__(self, observations: float = 0.1) -> None:
        self._observations = observations

    def examples(self, trajectories: Sequence[Trajectory]) -> list[Example]:
        return [Example(trajectory) for trajectory in trajectories if trajectory.steps]

    def pack(self, example: Example, packer: TreePacker) -> Tree:
        actions = example.weight if example.trajectory.success else 0.0
        return packer.pack(example.trajectory, Weights(actions, example.weight * self._observations))
