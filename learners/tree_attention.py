"""Attention over a packed tree, as Transformers' attention interface takes it. The trainer calls it through the model.

A dense mask over the whole tree would spend most of its time on pairs of branches that do not see each other: of a tree
of 1,200 tokens two thirds of the pairs are masked. Here the reference trajectory attends to itself, and the branches
of one state to the reference trajectory up to that state and to themselves. On a GPU one kernel, FlexAttention, does
all of it and passes over the blocks of pairs that are masked (*Flex Attention*, arXiv 2412.05496).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.flex_attention import compile_friendly_flex_attention

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
    """The reference trajectory is the first `reference` tokens; the groups follow it without gaps.

    Shapes: (tokens,). `segments` numbers the segment of each token, 0 for the reference trajectory; `parent_ends` and
    `positions` are the segment's `parent_end` and the token's position.
    """

    reference: int
    groups: tuple[BranchGroup, ...]
    segments: torch.Tensor
    parent_ends: torch.Tensor
    positions: torch.Tensor
    _block_masks: dict[int | None, BlockMask] = field(default_factory=dict, compare=False, repr=False)

    def to(self, device: torch.device) -> "TreeLayout":
        """The same layout on a device."""
        groups = tuple(
            replace(group, mask=group.mask.to(device), positions=group.positions.to(device)) for group in self.groups
        )
        return TreeLayout(
            self.reference,
            groups,
            self.segments.to(device),
            self.parent_ends.to(device),
            self.positions.to(device),
        )

    def block_mask(self, window: int | None) -> BlockMask:
        """The blocks of pairs of tokens that a layer computes which attends over the last `window` positions, or all.

        Made once for all layers and passes.
        """
        if window not in self._block_masks:
            segments, parent_ends, positions = self.segments, self.parent_ends, self.positions

            def seen(
                _batch: torch.Tensor, _head: torch.Tensor, row: torch.Tensor, column: torch.Tensor
            ) -> torch.Tensor:
                own = (segments[row] == segments[column]) & (column <= row)
                pairs = own | ((segments[column] == 0) & (column <= parent_ends[row]))
                return pairs if window is None else pairs & (positions[row] - positions[column] < window)

            length, device = len(segments), segments.device
            self._block_masks[window] = create_block_mask(seen, None, None, length, length, device=device)
        return self._block_masks[window]


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
    lengths = torch.tensor([segment.stop - segment.start for segment in segments])
    parent_ends = torch.tensor([segment.parent_end for segment in segments]).repeat_interleave(lengths)
    starts = torch.tensor([segment.start for segment in segments]).repeat_interleave(lengths)
    return TreeLayout(
        reference.stop,
        tuple(groups),
        torch.arange(len(segments)).repeat_interleave(lengths),
        parent_ends,
        torch.arange(len(starts)) - starts + parent_ends + 1,
    )


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
    if query.device.type == "cuda":
        return block_attention(query, key, value, tree, scaling, sliding_window), None
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


def block_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    tree: TreeLayout,
    scaling: float | None = None,
    window: int | None = None,
    kernel: Callable[..., Any] = compile_friendly_flex_attention,
) -> torch.Tensor:
    """Attend as `tree_attention` does, by one kernel; (1, tokens, heads, head size)."""
    grouped = query.shape[1] != key.shape[1]
    mixed: torch.Tensor = kernel(
        query, key, value, block_mask=tree.block_mask(window), scale=scaling, enable_gqa=grouped
    )
    return mixed.transpose(1, 2)


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
