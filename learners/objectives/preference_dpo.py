"""Direct preference optimisation: the trusted reply above those whose outcome was worse, at one state.

L = -log sigmoid(beta * h), h = log pi(y+|s)/pi_ref(y+|s) - log pi(y-|s)/pi_ref(y-|s), the mean over pairs; pi_ref is
the policy as it was when the stage began. `label_smoothing` is the share of pairs that are thought to be the wrong way
round (conservative DPO). Source: Rafailov et al. 2023 (arXiv 2305.18290), equation 7; `ipo` is equation 17 of Azar et
al. 2023 (arXiv 2310.12036) with the log-ratios per token, as TRL has it.

Of a tree a rejected reply weighs less than 0; it is compared with the first reply after it that weighs more.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch.nn.functional import logsigmoid

from learners.comparisons import compared
from learners.objectives.objective import Example
from learners.packed_tree import Tree
from learners.packing import TreePacker, can_be_imitated
from learners.trajectories import Trajectory


class PreferenceDPO:
    name = "preference_dpo"
    needs_reference = True

    def __init__(
        self, beta: float = 0.1, label_smoothing: float = 0.0, loss_type: Literal["sigmoid", "ipo"] = "sigmoid"
    ) -> None:
        self._beta = beta
        self._label_smoothing = label_smoothing
        self._loss_type = loss_type

    def examples(self, trajectories: Sequence[Trajectory]) -> list[Example]:
        return [Example(trajectory) for trajectory in compared(trajectories)]

    def pack(self, example: Example, packer: TreePacker) -> Tree:
        trajectory = example.trajectory
        packing = packer.begin(trajectory)
        for number, step in enumerate(trajectory.steps):
            if number < trajectory.learn_from or not can_be_imitated(step.action):
                continue
            rejected = [
                packing.add_alternative(branch, -example.weight)
                for branch in trajectory.branches
                if branch.step == number
            ]
            if any(one is not None for one in rejected):
                packing.add_action(number, example.weight)
        return packing.tree()

    def loss(self, tree: Tree, log_probabilities: torch.Tensor, reference: torch.Tensor | None) -> torch.Tensor:
        assert reference is not None
        ratios, weights, lengths = by_response(tree, log_probabilities - reference)
        chosen, rejected = _pairs(weights)
        if self._loss_type == "ipo":
            margins = ratios[chosen] / lengths[chosen] - ratios[rejected] / lengths[rejected]
            losses = (margins - 1 / (2 * self._beta)) ** 2
        else:
            margins = self._beta * (ratios[chosen] - ratios[rejected])
            smoothing = self._label_smoothing
            losses = -logsigmoid(margins) * (1 - smoothing) - logsigmoid(-margins) * smoothing
        return (losses * weights[chosen]).sum()

    def size(self, tree: Tree) -> float:
        """The number of pairs, weighed."""
        return float(-tree_weights(tree).clamp(max=0.0).sum())


def tree_weights(tree: Tree) -> torch.Tensor:
    """The weight of each response, in the order of their numbers: (responses,)."""
    return by_response(tree, torch.zeros(len(tree.targets)))[1]


def by_response(tree: Tree, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sum values of counted tokens by response: the sums, the responses' weights and lengths, each (responses,)."""
    numbers, index = tree.responses.unique(return_inverse=True)
    index = index.to(values.device)
    empty = torch.zeros(len(numbers), dtype=values.dtype, device=values.device)
    lengths = empty.index_add(0, index, torch.ones_like(values))
    weights = empty.index_add(0, index, tree.weights.to(values)) / lengths
    return empty.index_add(0, index, values), weights, lengths


def _pairs(weights: torch.Tensor) -> tuple[list[int], list[int]]:
    """The chosen and the rejected response of each pair."""
    chosen, rejected, waiting = [], [], []
    for number, weight in enumerate(weights.tolist()):
        if weight < 0:
            waiting.append(number)
        else:
            chosen += [number] * len(waiting)
            rejected += waiting
            waiting = []
    return chosen, rejected
