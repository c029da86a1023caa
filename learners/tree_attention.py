"""Attention over a packed tree, as Transformers' attention interface takes it. The trainer calls it through the model.

A dense mask over the whole tree would spend most of its time on pairs of branches that do not see each other: of a tree
of 1,200 tokens two thirds of the pairs are masked. Here the reference trajectory attends to itself, and the branches
of one state to the reference trajectory up to that state and to themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from streams.errors import ConfigurationError

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
    group itself. `positions` are those of the group's tokens.
    """

    start: int
    stop: int
    parent_end: int
    mask: torch.Tensor
    positions: torch.Tensor

    def seen(self, window: int | None) -> torch.Tensor:
        """The mask of a layer that attends over the last `window` positions, or over all."""
        if window is None:
            return self.mask
        columns = torch.cat([torch.arange(self.parent_end + 1, device=self.positions.device), self.positions])
        return self.mask & (self.positions[:, None] - columns[None, :] < window)


@dataclass(frozen=True, slots=True)
class TreeLayout:
    """The reference trajectory is the first `reference` tokens; the groups follow it without gaps."""

    reference: int
    groups: tuple[BranchGroup, ...]

    def to(self, device: torch.device) -> "TreeLayout":
        """The same layout on a device."""
        groups = tuple(
            replace(group, mask=group.mask.to(device), positions=group.positions.to(device)) for group in self.groups
        )
        return TreeLayout(self.reference, groups)


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
        positions = torch.cat([torch.arange(branch.stop - branch.start) for branch in group]) + parent_end + 1
        groups.append(BranchGroup(group[0].start, group[-1].stop, parent_end, seen, positions))
    return TreeLayout(reference.stop, tuple(groups))


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    tree: TreeLayout | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attend over one tree; `query` is (1, heads, tokens, head size), `key` and `value` have fewer heads.

    Raises `ConfigurationError` for a model whose attention takes more than this.
    """
    refuse_other_attention(module, others)
    if tree is None:
        raise ConfigurationError(f"{type(module).__name__} does not hand the tree of an episode to its attention")
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    reference = slice(0, tree.reference)
    band = _band(tree.reference, sliding_window, query.device)
    mixed = [
        scaled_dot_product_attention(
            query[:, :, reference],
            key[:, :, reference],
            value[:, :, reference],
            attn_mask=band,
            is_causal=band is None,
            scale=scaling,
        )
    ]
    for group in tree.groups:
        state, own = slice(0, group.parent_end + 1), slice(group.start, group.stop)
        mixed.append(
            scaled_dot_product_attention(
                query[:, :, own],
                torch.cat([key[:, :, state], key[:, :, own]], dim=2),
                torch.cat([value[:, :, state], value[:, :, own]], dim=2),
                attn_mask=group.seen(sliding_window),
                scale=scaling,
            )
        )
    return torch.cat(mixed, dim=2).transpose(1, 2), None


def refuse_other_attention(module: torch.nn.Module, others: dict[str, Any]) -> None:
    """Raises `ConfigurationError` when an attention module asks for more than scaled dot products under a mask."""
    asked = [name for name in ("softcap", "s_aux") if others.get(name) is not None]
    if asked:
        raise ConfigurationError(
            f"{type(module).__name__} computes attention with {' and '.join(asked)}, which is not implemented"
        )


def _band(length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """The causal mask of `length` tokens over the last `window`; None where plain causal attention is the same."""
    if window is None or length <= window:
        return None
    return torch.ones(length, length, dtype=torch.bool, device=device).tril().triu(1 - window)


AttentionInterface.register(NAME, tree_attention)
