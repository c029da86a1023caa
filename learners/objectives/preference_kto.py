"""Kahneman-Tversky optimisation: replies that are desirable or undesirable, each for itself, without pairs.

L = lambda_D * (1 - sigmoid(beta * (r - z))) for a desirable reply, lambda_U * (1 - sigmoid(beta * (z - r))) for an
undesirable one; r = log pi(y|s)/pi_ref(y|s), the mean over replies. Source: Ethayarajh et al. 2024 (arXiv 2402.01306),
equations 7 and 8.

The reference point z is max(0, the mean of log pi(y'|s)/pi_ref(y'|s)) over mismatched replies: at each state the action
of the next state that was acted at, the last state's being the first one's. It is of one tree, not of an update, has no
gradient, and is never below 0, as a KL divergence is not; unlike one, a mean of few replies may be far above it. An
episode of one state has no mismatched reply: z is 0.

Of a tree a desirable reply weighs more than 0, an undesirable one less, a mismatched one `MISMATCHED`.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from learners.comparisons import worse_branches
from learners.objectives.objective import Example
from learners.objectives.preference_dpo import by_response, tree_weights
from learners.packed_tree import Tree
from learners.packing import TreePacker, can_be_imitated
from learners.trajectories import Trajectory

MISMATCHED = 2.0**-20


class PreferenceKTO:
    """`desirable` and `undesirable` are lambda_D and lambda_U."""

    name = "preference_kto"
    needs_reference = True

    def __init__(self, beta: float = 0.1, desirable: float = 1.0, undesirable: float = 1.0) -> None:
        self._beta = beta
        self._desirable = desirable
        self._undesirable = undesirable

    def examples(self, trajectories: Sequence[Trajectory]) -> list[Example]:
        """Episodes, if there is anything undesirable among them: without it, all would be pushed one way."""
        acted = [replace(one, branches=worse_branches(one) if one.success else ()) for one in trajectories if one.steps]
        if all(one.success and not one.branches for one in acted):
            return []
        return [Example(one) for one in acted]

    def pack(self, example: Example, packer: TreePacker) -> Tree:
        trajectory = example.trajectory
        packing = packer.begin(trajectory)
        sign = 1.0 if trajectory.success else -1.0
        acted = [
            number
            for number, step in enumerate(trajectory.steps)
            if number >= trajectory.learn_from and can_be_imitated(step.action)
        ]
        for number in acted:
            packing.add_action(number, sign * example.weight)
        for branch in trajectory.branches:
            packing.add_alternative(branch, -example.weight)
        if len(acted) > 1:
            for number, other in zip(acted, [*acted[1:], acted[0]], strict=True):
                packing.add_reply(number, trajectory.steps[other].action.spoken(), MISMATCHED)
        return packing.tree()

    def loss(self, tree: Tree, log_probabilities: torch.Tensor, reference: torch.Tensor | None) -> torch.Tensor:
        assert reference is not None
        ratios, weights, _ = by_response(tree, log_probabilities - reference)
        mismatched = ratios[weights == MISMATCHED].detach()
        point = mismatched.mean().clamp(min=0.0) if mismatched.numel() else ratios.new_zeros(())
        desirable, undesirable = weights > MISMATCHED, weights < 0
        good = 1 - torch.sigmoid(self._beta * (ratios[desirable] - point))
        bad = 1 - torch.sigmoid(self._beta * (point - ratios[undesirable]))
        return (self._desirable * good * weights[desirable]).sum() - (
            self._undesirable * bad * weights[undesirable]
        ).sum()

    def size(self, tree: Tree) -> float:
        """The number of replies, weighed, without the mismatched ones."""
        weights = tree_weights(tree)
        return float(weights[weights != MISMATCHED].abs().sum())
