"""Attention over a packed tree, as Transformers' attention interface takes it. The trainer calls it through the model.

A dense mask over the whole tree would spend most of its time on pairs of branches that do not see each other: of a tree
of 1,200 tokens two thirds of the pairs are masked. Here the first segment attends to itself, and the branches of one
state to what leads to that state and to themselves. On a GPU one kernel, FlexAttention, does all of it and passes over
the blocks of pairs that are masked (*Flex Attention*, arXiv 2412.05496).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.flex_attention import compile_friendly_flex_attention

from ratchet_client.errors import ConfigurationError

NAME = "ratchet_tree"


# More tokens of branches than these side by side would spend most of their time on pairs that do not see each other.
_MOST_SIDE_BY_SIDE = 256


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive tokens; `parent_end` indexes the token they continue from, -1 for the first segment."""

    start: int
    stop: int
    parent_end: int


@dataclass(frozen=True, slots=True)
class BranchGroup:
    """Branches of one state, side by side from `start` to `stop`.

    `context` has the slices of tokens that lead to the state. `mask` is True where a row, a token of the group, sees a
    column: the context, then the group itself. `positions` are those of the group's tokens.
    """

    start: int
    stop: int
    context: tuple[slice, ...]
    mask: torch.Tensor
    positions: torch.Tensor

    def seen(self, window: int | None) -> torch.Tensor:
        """The mask of a layer that attends over the last `window` positions, or over all."""
        if window is None:
            return self.mask
        before = self.mask.shape[1] - self.mask.shape[0]
        columns = torch.cat([torch.arange(before, device=self.positions.device), self.positions])
        return self.mask & (self.positions[:, None] - columns[None, :] < window)

    def with_context(self, states: torch.Tensor) -> torch.Tensor:
        """The keys or values, (1, heads, tokens, size), of the mask's columns."""
        return torch.cat([states[:, :, part] for part in (*self.context, slice(self.start, self.stop))], dim=2)


@dataclass(frozen=True, slots=True)
class TreeLayout:
    """What attends to what: the first segment to itself, the groups, which follow without gaps, to their context, too.

    Shapes: `numbers` and `positions`, (tokens,), are the number of each token's segment and its position; `ends`,
    (segments, segments), has the last token of the second segment that tokens of the first see, -1 where they see none.
    """

    segments: tuple[Segment, ...]
    groups: tuple[BranchGroup, ...]
    numbers: torch.Tensor
    positions: torch.Tensor
    ends: torch.Tensor
    _block_masks: dict[int | None, BlockMask] = field(default_factory=dict, compare=False, repr=False)

    @property
    def reference(self) -> int:
        """The number of tokens of the first segment."""
        return self.segments[0].stop

    def to(self, device: torch.device) -> "TreeLayout":
        """The same layout on a device."""
        groups = tuple(
            replace(group, mask=group.mask.to(device), positions=group.positions.to(device)) for group in self.groups
        )
        return TreeLayout(
            self.segments, groups, self.numbers.to(device), self.positions.to(device), self.ends.to(device)
        )

    def block_mask(self, window: int | None) -> BlockMask:
        """The blocks of pairs of tokens that a layer computes which attends over the last `window` positions, or all.

        Made once for all layers and passes.
        """
        if window not in self._block_masks:
            numbers, positions, ends = self.numbers, self.positions, self.ends

            def seen(
                _batch: torch.Tensor, _head: torch.Tensor, row: torch.Tensor, column: torch.Tensor
            ) -> torch.Tensor:
                pairs = (column <= row) & (column <= ends[numbers[row], numbers[column]])
                return pairs if window is None else pairs & (positions[row] - positions[column] < window)

            length, device = len(numbers), numbers.device
            self._block_masks[window] = create_block_mask(seen, None, None, length, length, device=device)
        return self._block_masks[window]


def tree_layout(segments: Sequence[Segment]) -> TreeLayout:
    """The layout of segments that each continue from a token of an earlier one, but the first, without gaps."""
    ends = torch.full((len(segments), len(segments)), -1)
    for number, segment in enumerate(segments):
        if segment.parent_end >= 0:
            parent = _holder(segments, segment.parent_end)
            ends[number] = ends[parent]
            ends[number, parent] = segment.parent_end
        ends[number, number] = segment.stop - 1
    contexts = [_context(segments, ends[number].tolist(), number) for number in range(len(segments))]
    begins = torch.tensor([_length(context) for context in contexts])
    lengths = torch.tensor([segment.stop - segment.start for segment in segments])
    starts = torch.tensor([segment.start for segment in segments])
    numbers = torch.arange(len(segments)).repeat_interleave(lengths)
    positions = torch.arange(len(numbers)) - starts[numbers] + begins[numbers]
    groups = tuple(
        BranchGroup(
            group[0].start,
            group[-1].stop,
            context := contexts[segments.index(group[0])],
            _mask(group, _length(context)),
            positions[group[0].start : group[-1].stop],
        )
        for group in _side_by_side(segments[1:])
    )
    return TreeLayout(tuple(segments), groups, numbers, positions, ends)


def _side_by_side(branches: Sequence[Segment]) -> list[list[Segment]]:
    """The branches in groups of one state each."""
    groups: list[list[Segment]] = []
    for branch in branches:
        first = groups[-1][0] if groups else None
        if first and first.parent_end == branch.parent_end and branch.stop - first.start <= _MOST_SIDE_BY_SIDE:
            groups[-1].append(branch)
        else:
            groups.append([branch])
    return groups


def _holder(segments: Sequence[Segment], token: int) -> int:
    """The number of the segment that holds a token."""
    return next(number for number, segment in enumerate(segments) if segment.start <= token < segment.stop)


def _context(segments: Sequence[Segment], ends: Sequence[int], number: int) -> tuple[slice, ...]:
    """The tokens that a segment continues; slices that follow each other are one."""
    found: list[slice] = []
    for segment, end in zip(segments[:number], ends, strict=False):
        if end < 0:
            continue
        if found and found[-1].stop == segment.start:
            found[-1] = slice(found[-1].start, end + 1)
        else:
            found.append(slice(segment.start, end + 1))
    return tuple(found)


def _length(context: Sequence[slice]) -> int:
    return sum(part.stop - part.start for part in context)


def _mask(group: Sequence[Segment], context: int) -> torch.Tensor:
    own = torch.block_diag(
        *(torch.ones(branch.stop - branch.start, branch.stop - branch.start).tril() for branch in group)
    )
    return torch.cat([torch.ones(own.shape[0], context), own], dim=1).bool()


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
        mixed.append(
            scaled_dot_product_attention(
                query[:, :, group.start : group.stop],
                group.with_context(key),
                group.with_context(value),
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
