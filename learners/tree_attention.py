"""Attention over a packed tree, as Transformers' attention interface takes it. The trainer calls it through the model.

A dense mask over the whole tree would spend most of its time on pairs of branches that do not see each other: of a tree
of 1,200 tokens two thirds of the pairs are masked. Here the reference trajectory attends to itself, and the branches
of one state to the reference trajectory up to that state and to themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "ratchet_tree"


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive tokens; `parent_end` indexes the token they continue from, -1 for the reference trajectory."""

    start: int
    stop: int
    parent_end: int


@dataclass(frozen=True, slots=True)
class BranchGroup:
    """The branches of one state, side by side from `start` to `stop`, continuing from token `parent_end`.

    `mask` is True where a row, a token of the group, sees a column: the reference trajectory up to the state, then the
    group itself.
    """

    start: int
    stop: int
    parent_end: int
    mask: torch.Tensor


@dataclass(frozen=True, slots=True)
class TreeLayout:
    """The reference trajectory is the first `reference` tokens; the groups follow it without gaps."""

    reference: int
    groups: tuple[BranchGroup, ...]


def tree_layout(segments: Sequence[Segment]) -> TreeLayout:
    """The layout of a reference trajectory, which comes first, and branches that continue it."""
    reference, *branches = segments
    groups = []
    for parent_end, members in groupby(branches, key=lambda branch: branch.parent_end):
        group = list(members)
        own = torch.block_diag(
            *(torch.ones(branch.stop - branch.start, branch.stop - branch.start).tril() for branch in group)
        )
        seen = torch.cat([torch.ones(own.shape[0], parent_end + 1), own], dim=1).bool()
        groups.append(BranchGroup(group[0].start, group[-1].stop, parent_end, seen))
    return TreeLayout(reference.stop, tuple(groups))


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    tree: TreeLayout | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend over one tree; `query` is (1, heads, tokens, head size), `key` and `value` have fewer heads."""
    assert tree is not None, "the trainer passes the layout with every forward"
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    reference = slice(0, tree.reference)
    mixed = [
        scaled_dot_product_attention(
            query[:, :, reference], key[:, :, reference], value[:, :, reference], is_causal=True, scale=scaling
        )
    ]
    for group in tree.groups:
        state, own = slice(0, group.parent_end + 1), slice(group.start, group.stop)
        mixed.append(
            scaled_dot_product_attention(
                query[:, :, own],
                torch.cat([key[:, :, state], key[:, :, own]], dim=2),
                torch.cat([value[:, :, state], value[:, :, own]], dim=2),
                attn_mask=group.mask,
                scale=scaling,
            )
        )
    return torch.cat(mixed, dim=2).transpose(1, 2), None


AttentionInterface.register(NAME, tree_attention)
