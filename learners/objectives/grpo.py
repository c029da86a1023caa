"""Group-relative policy optimisation: make the actions of better attempts at a task likelier than those of worse ones.

A group is all practised attempts of one adapter at one task. An attempt's advantage A is its score less the group's
mean, over the group's standard deviation; it holds for each of its actions' tokens. With the ratio
r = pi(token) / pi_sampled(token),

    L = -mean min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) + kl mean r (e^d - d - 1),   d = log pi_ref - log pi.

Sources: *DeepSeekMath* (arXiv 2402.03300), equations 3 and 4: groups, ratios and the estimate of the divergence;
*DeepSeek-V3.2* (arXiv 2512.02556): the ratio before it, since the tokens are another policy's; DAPO (arXiv 2503.14476):
the mean over all tokens, the wider upper bound, no divergence and no group without spread; Dr. GRPO (arXiv 2503.20783):
no division by the deviation, a constant instead of the number of tokens; INTELLECT-2 (arXiv 2505.07291): the limit of
the ratio where the advantage is negative.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, stdev

import torch

from learners.objectives.objective import Example
from learners.packed_tree import Tree
from learners.packing import TreePacker, Weights, can_be_imitated
from learners.trajectories import Trajectory

# As in TRL, added to the deviation.
_EPSILON = 1e-4
_NO_SPREAD = 1e-6
# A logarithm whose exponential is finite, and with it the gradient.
_GREATEST_LOG_RATIO = 20.0


class Grpo:
    """Failures take part, with a negative advantage. An attempt as good as its group's mean teaches nothing.

    Of an attempt with a negative advantage all actions count, also empty ones and malformed calls, which are the first
    that should become less likely. Of one with a positive advantage those do not count: that it succeeded in spite of
    them is no reason to do them again.
    """

    needs_reference = True

    def __init__(
        self,
        name: str = "grpo",
        *,
        clip_low: float = 0.2,
        clip_high: float = 0.28,
        ratio_limit: float = 4.0,
        kl: float = 0.0,
        scaled: bool = True,
        length: int | None = None,
    ) -> None:
        """`ratio_limit`, above 1 + `clip_high`, is beyond which a token with a negative advantage has no gradient.

        `kl` weighs the divergence from the policy as it was when the stage began. `scaled` is the division by the
        group's deviation. The loss is a mean over tokens, or over as many as `length` for each trajectory.
        """
        self.name = name
        self._low, self._high = 1 - clip_low, 1 + clip_high
        self._limit = ratio_limit
        self._kl = kl
        self._scaled = scaled
        self._length = length

    def examples(self, trajectories: Sequence[Trajectory]) -> list[Example]:
        return [example for group in groups(trajectories) for example in self.weighed(group)]

    def weighed(self, group: Sequence[Trajectory]) -> list[Example]:
        """The members of a group from which something can be learned, each with its advantage as weight."""
        found = advantages([member.score for member in group], scaled=self._scaled)
        weighed = [Example(member, advantage) for member, advantage in zip(group, found, strict=True)]
        return [example for example in weighed if _teaches(example)]

    def pack(self, example: Example, packer: TreePacker) -> Tree:
        return packer.pack(example.trajectory, Weights(actions=example.weight))

    def loss(self, tree: Tree, log_probabilities: torch.Tensor, reference: torch.Tensor | None) -> torch.Tensor:
        ratio = ratios(tree, log_probabilities, reference)
        clipped = ratio.clamp(self._low, self._high)
        gained = torch.min(ratio.clamp(max=self._limit) * tree.weights, clipped * tree.weights)
        return self.divergence(ratio, log_probabilities, reference) - gained.sum()

    def divergence(
        self, ratio: torch.Tensor, log_probabilities: torch.Tensor, reference: torch.Tensor | None
    ) -> torch.Tensor:
        """The weighed divergence from the reference, summed over tokens, of which `ratio` are the ratios."""
        if not self._kl or reference is None:
            return log_probabilities.new_zeros(())
        difference = reference - log_probabilities
        return self._kl * (ratio * (difference.exp() - difference - 1)).sum()

    def size(self, tree: Tree) -> float:
        return float(self._length or tree.weights.numel())


def groups(trajectories: Sequence[Trajectory]) -> list[list[Trajectory]]:
    """The practised attempts of one adapter at one task, for each, in the order of their first ones.

    Attempts without a step, those whose score is not a number, and those of a policy that had been told more than the
    prompt says are left out.
    """
    found: dict[tuple[str, str | None], list[Trajectory]] = defaultdict(list)
    for trajectory in trajectories:
        bare = trajectory.origin == "practice" and trajectory.actor_kind == "policy"
        if bare and trajectory.steps and math.isfinite(trajectory.score):
            found[trajectory.task_id, trajectory.adapter].append(trajectory)
    return list(found.values())


def advantages(scores: Sequence[float], *, scaled: bool = True) -> list[float]:
    """Return each score less the mean, with `scaled` in standard deviations; 0 for all without spread.

    >>> [round(advantage, 3) for advantage in advantages([1.0, 0.0, 0.0, 0.0])]
    [1.5, -0.5, -0.5, -0.5]
    >>> advantages([0.0, 1.0], scaled=False)
    [-0.5, 0.5]
    >>> advantages([1.0, 1.0])
    [0.0, 0.0]
    """
    if not scores or max(scores) - min(scores) < _NO_SPREAD:
        return [0.0] * len(scores)
    mean = fmean(scores)
    deviation = stdev(scores) + _EPSILON if scaled else 1.0
    return [(score - mean) / deviation for score in scores]


def ratios(tree: Tree, log_probabilities: torch.Tensor, reference: torch.Tensor | None) -> torch.Tensor:
    """Return each counted token's probability over that when it was sampled, or under `reference` if unknown.

    Raises `ValueError` without a reference.
    """
    if reference is None:
        raise ValueError("the policy of the stage's beginning stands for unknown log-probabilities: give the reference")
    sampled = torch.where(tree.sampled.isnan(), reference, tree.sampled)
    return (log_probabilities - sampled).clamp(max=_GREATEST_LOG_RATIO).exp()


def _teaches(example: Example) -> bool:
    if example.weight > 0:
        return any(can_be_imitated(step.action) for step in example.trajectory.steps)
    return example.weight < 0
