"""Reads a packed tree."""

import torch
from transformers import PreTrainedModel

from learners.packed_tree import Tree
from learners.scoring import log_probabilities


def tree_loss(model: PreTrainedModel, tree: Tree) -> torch.Tensor:
    """The weighted sum of the counted tokens' negative log-likelihoods, in nats."""
    return -(log_probabilities(model, tree) * tree.weights).sum()


def path(tree: Tree, index: int) -> list[int]:
    """The tokens that the token at `index` sees before it."""
    before = list(range(min(index, tree.layout.reference)))
    for group in tree.layout.groups:
        if group.start <= index < group.stop:
            seen = group.mask[index - group.start].nonzero()[:, 0].tolist()[:-1]
            context = [at for part in group.context for at in range(part.start, part.stop)]
            columns = [*context, *range(group.start, group.stop)]
            before = [columns[column] for column in seen]
    return [int(tree.ids[at]) for at in before]


def sequences(tree: Tree) -> list[tuple[list[int], dict[int, int]]]:
    """The counted tokens as sequences of their own, none of which another one begins with.

    Each comes with the positions in it that count, and which of the counted tokens they are.
    """
    whole = {(*path(tree, at), int(tree.ids[at])): number for number, at in enumerate(tree.targets.tolist())}
    found: list[tuple[list[int], dict[int, int]]] = []
    for ids in sorted(whole, key=len, reverse=True):
        place = {len(ids) - 1: whole[ids]}
        behind = next((counted for longer, counted in found if tuple(longer[: len(ids)]) == ids), None)
        if behind is None:
            found.append((list(ids), place))
        else:
            behind |= place
    return found
