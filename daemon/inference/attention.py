"""Attention over cached slots, as Transformers' attention interface takes it. The runner calls it through the model.

All new tokens of a forward pass lie behind one another in one row without padding, so the linear layers compute
nothing in vain; only here are they parted by slot again. Transformers' own continuous batching packs them the same way,
but then attends over everything under one dense mask, which on a CPU grows with the square of the requests in flight.

Grouped query heads are folded into the length axis: repeating the keys for each query head instead, as `sdpa` does with
a mask, copies the whole cache at every step and is several times slower.

Of a prefix that several slots share, such as a system prompt with its tools, keys and values are read once for all of
them (Hydragen, Juravsky et al. 2024, arXiv 2402.05099). Each slot attends over the rest, and the two are merged.
"""

import math
import mmap
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface

from daemon.inference.segments import AttentionPlan
from learners.tree_attention import refuse_other_attention
from ratchet_client.errors import ConfigurationError

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
class SlotBatch:
    """Places of the new tokens of one forward pass: token i goes to position `positions[i]` of slot `slots[i]`."""

    storage: SlotStorage
    slots: torch.Tensor
    positions: torch.Tensor
    plan: AttentionPlan


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
    sums = torch.empty((total, heads)) if slot_batch.plan.shared else None
    for part in slot_batch.plan.segments:
        slots = slice(part.first_slot, part.first_slot + part.rows)
        seen = slice(part.start, part.length)
        folded = query[0, :, part.places].reshape(key_heads, groups, part.rows, part.tokens, size)
        folded = folded.permute(2, 0, 1, 3, 4).reshape(part.rows, key_heads, groups * part.tokens, size)
        mask = part.mask if sliding_window is None else part.windowed.get(sliding_window, part.mask)
        if sums is not None and part.start:
            heads_out, part_sums = _flash(folded, keys[slots, :, seen], values[slots, :, seen], mask, scaling)
            sums[part.places] = _by_token(part_sums.reshape(part.rows, key_heads, groups, part.tokens))
        else:
            heads_out = functional.scaled_dot_product_attention(
                folded, keys[slots, :, seen], values[slots, :, seen], attn_mask=mask, scale=scaling
            )
        mixed[part.places] = _by_token(heads_out.reshape(part.rows, key_heads, groups, part.tokens, size))
    for prefix in slot_batch.plan.shared:
        assert sums is not None
        slots, seen = slice(prefix.slot, prefix.slot + 1), slice(prefix.length)
        folded = query[0, :, prefix.rows].reshape(1, key_heads, -1, size)
        heads_out, prefix_sums = _flash(folded, keys[slots, :, seen], values[slots, :, seen], None, scaling)
        # The softmax over both parts weighs each by its sum of exponentials.
        share = torch.sigmoid(prefix_sums.reshape(heads, -1).T - sums[prefix.rows])[..., None]
        of_prefix = heads_out.reshape(heads, -1, size).transpose(0, 1).float()
        mixed[prefix.rows] = mixed[prefix.rows].float().lerp(of_prefix, share).to(mixed.dtype)
    return mixed[None], None


def _by_token(folded: torch.Tensor) -> torch.Tensor:
    """Bring (slots, key heads, groups, tokens, ...) into the order of the pass: (slots * tokens, heads, ...)."""
    slots, key_heads, groups, tokens = folded.shape[:4]
    return folded.movedim(3, 1).reshape(slots * tokens, key_heads * groups, *folded.shape[4:])


def _flash(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None, scaling: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention, and the logarithm of each query's sum of exponentials (batch, heads, queries) in float32.

    It is what `scaled_dot_product_attention` calls on a CPU, which keeps the sums to itself.
    """
    attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    mixed, sums = attend(query, keys, values, attn_mask=mask, scale=scaling)
    return mixed, sums


def _lazy_zeros(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    # Zeros and not garbage, since a masked NaN would still spoil the sum; mapped, so that a token takes no memory
    # before it is written, and none when the model is unloaded; not in huge pages, which hold whole slots.
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


AttentionInterface.register(NAME, slot_attention)
