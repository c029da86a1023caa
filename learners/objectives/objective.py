"""The base of all objectives: each turns a trajectory into a packed tree whose counted tokens are its loss."""

from typing import Protocol

from learners.packing import Tree, TreePacker
from learners.trajectories import Trajectory


class Objective(Protocol):
    """One algorithm. Its loss is the weighted mean of the counted tokens' negative log-likelihoods."""

    name: str

    def applies(self, trajectory: Trajectory) -> bool:
        """Return whether the trajectory holds anything that this objective learns from."""
        ...

    def pack(self, trajectory: Trajectory, packer: TreePacker) -> Tree: ...
