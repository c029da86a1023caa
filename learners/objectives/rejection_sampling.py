"""Rejection sampling: do again what the policy itself did and a verifier confirmed.

L = -sum w log pi(a_i | s_i) over the policy's own successes. Each task weighs the same, however many successes it has:
w is 1 / (successes of the task), scaled so that the mean over episodes is 1, so easy tasks do not drown hard ones.
Source: Yuan et al. 2023 (arXiv 2308.01825), rejection sampling fine-tuning; the weights are the uniform ones of Tong et
al. 2024 (DART-Math, arXiv 2407.13690).
"""

from collections import Counter
from collections.abc import Sequence

from learners.objectives.objective import Example, Likelihood
from learners.packed_tree import Tree
from learners.packing import TreePacker, Weights
from learners.trajectories import RECOVERY, Trajectory


class RejectionSampling(Likelihood):
    name = "rejection_sampling"

    def examples(self, trajectories: Sequence[Trajectory]) -> list[Example]:
        own = [one for one in trajectories if one.success and one.steps and one.actor_kind in ("policy", RECOVERY)]
        successes = Counter(one.task_id for one in own)
        scale = len(own) / max(1, len(successes))
        return [Example(one, scale / successes[one.task_id]) for one in own]

    def pack(self, example: Example, packer: TreePacker) -> Tree:
        return packer.pack(example.trajectory, Weights(actions=example.weight))

    def size(self, tree: Tree) -> float:
        """The counted tokens: divided by the sum of their weights, an update of one task would not know its weight."""
        return float(tree.weights.numel())
