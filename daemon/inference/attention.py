"""Attention over cached slots, as Transformers' attention interface takes it. The runner calls it through the model.

All new tokens of a forward pass lie behind one another in one row without padding, so the linear layers compute
nothing in vain; only here are they parted by slot again. Transformers' own continuous batching packs them the same way,
but then attends over everything under one dense mask, which on a CPU grows with the square of the requests in flight.

Grouped query heads are folded into the length axis: repeating the keys for each query head instead, as `sdpa` does with
a mask, copies the whole cache at every step and is several times slower.
"""

import math
import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface

from learners.tree_attention import refuse_other_attention
from streams.errors import ConfigurationError

NAME = "ratchet_slots"


class SlotStorage:
    """Keys and values of every slot of one model.

    Args:
        shape: layers, slots, key-value heads, longest sequence, head size.
    """

    def __init__(self, shape: tuple[int, int, int, int, int], dtype: torch.dtype) -> None:
        self.keys = _lazy_zeros(shape, dtype)
        self.values = _lazy_zeros(shape, dtype)

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of slot `source` to slot `target`."""
        for tensor in (self.keys, self.values):
            tensor[:, target, :, :length] = tensor[:, source, :, :length]


@dataclass(frozen=True, slots=True)
class SlotSegment:
    """A run of neighbouring slots that each get the same number of new tokens.

    Attributes:
        offset: where the first of the new tokens lies among all of this pass; they are ordered by slot.
        first_slot, rows: the slots are `first_slot` to `first_slot + rows - 1`.
        tokens: new tokens of each slot.
        length: tokens of the longest slot, the new ones included.
        mask: additive, of shape (rows, 1, query heads per key head * tokens, length); None lets everything through.
        windowed: the mask of layers that attend over the last positions only, by their number.
    """

    offset: int
    first_slot: int
    rows: int
    tokens: int
    length: int
    mask: torch.Tensor | None
    windowed: dict[int, torch.Tensor]


@dataclass(frozen=True, slots=True)
class SlotBatch:
    """Places of the new tokens of one forward pass: token i goes to position `positions[i]` of slot `slots[i]`."""

    storage: SlotStorage
    slots: torch.Tensor
    positions: torch.Tensor
    segments: tuple[SlotSegment, ...]


def make_segment(
    offset: int,
    first_slot: int,
    before: list[int],
    tokens: int,
    *,
    groups: int,
    dtype: torch.dtype,
    windows: Iterable[int] = (),
) -> SlotSegment:
    """A segment with its masks; `before` holds how many tokens each of its slots already has.

    `groups` is the number of query heads that share a key head, `dtype` that of the queries, and `windows` are the
    numbers of last positions that some layers attend over.
    """
    length = max(before) + tokens

    def mask(window: int) -> torch.Tensor:
        last_seen = torch.tensor(before)[:, None, None] + torch.arange(tokens)[None, :, None]
        column = torch.arange(length)[None, None, :]
        hidden = (column > last_seen) | (column <= last_seen - window)
        return torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf)[:, None].repeat(1, 1, groups, 1)

    whole = mask(length) if tokens > 1 or min(before) != max(before) else None
    windowed = {window: mask(window) for window in windows if length > window}
    return SlotSegment(offset, first_slot, len(before), tokens, length, whole, windowed)


def slot_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    slot_batch: SlotBatch | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Store the new keys and values, then attend over each slot; shapes are (1, heads, new tokens, head size).

    Raises `ConfigurationError` for a model whose attention takes more than this.
    """
    refuse_other_attention(module, others)
    if slot_batch is None:
        raise ConfigurationError(f"{type(module).__name__} does not hand the slots of a batch to its attention")
    layer: Any = module.layer_idx
    keys, values = slot_batch.storage.keys[layer], slot_batch.storage.values[layer]
    keys[slot_batch.slots, :, slot_batch.positions] = key[0].transpose(0, 1)
    values[slot_batch.slots, :, slot_batch.positions] = value[0].transpose(0, 1)

    heads, total, size = query.shape[1:]
    key_heads = key.shape[1]
    groups = heads // key_heads
    mixed = query.new_empty((total, heads, size))
    for part in slot_batch.segments:
        span = slice(part.offset, part.offset + part.rows * part.tokens)
        slots = slice(part.first_slot, part.first_slot + part.rows)
        folded = query[0, :, span].reshape(key_heads, groups, part.rows, part.tokens, size)
        folded = folded.permute(2, 0, 1, 3, 4).reshape(part.rows, key_heads, groups * part.tokens, size)
        heads_out = functional.scaled_dot_product_attention(
            folded,
            keys[slots, :, : part.length],
            values[slots, :, : part.length],
            attn_mask=part.mask if sliding_window is None else part.windowed.get(sliding_window, part.mask),
            scale=scaling,
        )
        unfolded = heads_out.reshape(part.rows, key_heads, groups, part.tokens, size).permute(0, 3, 1, 2, 4)
        mixed[span] = unfolded.reshape(-1, heads, size)
    return mixed[None], None


def _lazy_zeros(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    # Zeros and not garbage, since a masked NaN would still spoil the sum; mapped, so that a token takes no memory
    # before it is written, and none when the model is unloaded; not in huge pages, which hold whole slots.
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


AttentionInterface.register(NAME, slot_attention)
