"""Self-reflection: give the reasons for the trusted action, by what its alternatives led to, and then take it.

L = -sum log pi(c_i, a_i | s_i) - sum log pi(a_i | s_i): a rationale c_i and the action as one reply, wherever one is
known, mixed with imitation of all trusted steps in one pass. The rationales are written before the training
(`learners/reflections`). Source: *Agent Learning via Early Experience* (arXiv 2510.08558), section on self-reflection.
"""

from collections.abc import Sequence

from learners.objectives.objective import Example, Likelihood
from learners.packed_tree import Tree
from learners.packing import TreePacker
from learners.trajectories import Rationale, Trajectory

# The writers of rationales that are reasons for an action, unlike lessons.
GROUNDED = "grounded"
MODEL = "model"


class Reflection(Likelihood):
    name = "reflection"

    def examples(self, trajectories: Sequence[Trajectory]) -> list[Example]:
        trusted = [one for one in trajectories if one.steps and one.success]
        return [Example(one) for one in trusted] if any(map(reasons, trusted)) else []

    def pack(self, example: Example, packer: TreePacker) -> Tree:
        packing = packer.begin(example.trajectory)
        for number in range(len(example.trajectory.steps)):
            packing.add_action(number, example.weight)
        for rationale in reasons(example.trajectory):
            packing.add_rationale(rationale, example.weight)
        return packing.tree()


def reasons(trajectory: Trajectory) -> tuple[Rationale, ...]:
    """The rationales of a trajectory that are reasons for its actions."""
    return tuple(rationale for rationale in trajectory.rationales if rationale.writer in (GROUNDED, MODEL))
