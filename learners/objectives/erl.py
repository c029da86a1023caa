"""Experiential reinforcement learning: what succeeded after a reflection is learned for the prompt without it.

L = -sum log pi(a_i | s_i) over the second attempts that succeeded, whose states do not show the reflection that they
were played with; a second attempt that failed is not learned from. `evaluation/second_attempts.py` plays them. Source:
*Experiential Reinforcement Learning* (arXiv 2602.13949), the step of internalisation; its reinforcement of first
attempts is the objective `grpo`.
"""

from collections.abc import Sequence

from learners.objectives.objective import Example, Likelihood
from learners.packed_tree import Tree
from learners.packing import TreePacker, Weights
from learners.trajectories import REFLECTED, Trajectory


class Erl(Likelihood):
    name = "erl"

    def examples(self, trajectories: Sequence[Trajectory]) -> list[Example]:
        return [Example(one) for one in trajectories if one.actor_kind == REFLECTED and one.success and one.steps]

    def pack(self, example: Example, packer: TreePacker) -> Tree:
        return packer.pack(example.trajectory, Weights(actions=example.weight))
