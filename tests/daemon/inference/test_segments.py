"""Attention over slots is that of each sequence by itself, whatever mixture of new tokens a pass has."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from daemon.inference.attention import SlotBatch, SlotStorage, slot_attention
from daemon.inference.drafting import LONGEST_DRAFT
from daemon.inference.segments import NewTokens, plan_attention
from daemon.inference.slots import SlotTable

KEY_HEADS, GROUPS, SIZE, SLOTS, LONGEST = 2, 3, 8, 6, 700

sequences = st.tuples(
    st.integers(1, 200),  # tokens of the sequence itself that are there already
    st.one_of(st.just(0), st.just(1), st.integers(1, LONGEST_DRAFT + 3)),  # new ones
)


def slot_batch(before: list[int], new: list[int], common: int, window: int | None) -> SlotBatch:
    """A pass over slots that all begin with `common` equal tokens, and have keys and values of what came before."""
    table = SlotTable(len(before), LONGEST)
    table_of_vectors = torch.randn(2, LONGEST * (len(before) + 1), KEY_HEADS, SIZE)
    storage = SlotStorage((1, len(before), KEY_HEADS, LONGEST, SIZE), torch.float32)
    items = []
    for index, own in enumerate(before):
        prompt = np.concatenate([np.arange(common), np.arange(own) + (index + 1) * LONGEST]).astype(np.int32)
        placement = table.place(prompt)
        assert placement is not None
        table.computed(placement.slot, len(prompt))
        for tensor, vectors in zip((storage.keys, storage.values), table_of_vectors, strict=True):
            tensor[0, placement.slot, :, : len(prompt)] = vectors[prompt].transpose(0, 1)
        items.append(NewTokens(placement.slot, len(prompt), new[index]))
    items = sorted((item for item in items if item.count), key=lambda item: item.slot)
    plan = plan_attention(items, table, groups=GROUPS, dtype=torch.float32, windows=() if window is None else (window,))
    slots = torch.tensor([item.slot for item in items for _ in range(item.count)])
    positions = torch.tensor([item.before + at for item in items for at in range(item.count)])
    return SlotBatch(storage, slots, positions, plan)


def alone(batch: SlotBatch, query: torch.Tensor, window: int | None) -> torch.Tensor:
    """What each token attends to in its own slot: (new tokens, heads, head size)."""
    replies = []
    for at, (slot, position) in enumerate(zip(batch.slots.tolist(), batch.positions.tolist(), strict=True)):
        first = 0 if window is None else max(0, position + 1 - window)
        keys, values = (part[0, slot, :, first : position + 1] for part in (batch.storage.keys, batch.storage.values))
        replies.append(functional.scaled_dot_product_attention(query[0, :, at, None], keys, values, enable_gqa=True))
    return torch.cat(replies, dim=1).transpose(0, 1)


@settings(max_examples=60)
@given(
    drawn=st.lists(sequences, min_size=1, max_size=SLOTS).filter(lambda drawn: any(new for _, new in drawn)),
    common=st.sampled_from([0, 3, 400]),
    window=st.sampled_from([None, 5]),
    seed=st.integers(0, 9),
)
def test_each_sequence_attends_as_if_it_were_alone(
    drawn: list[tuple[int, int]], common: int, window: int | None, seed: int
) -> None:
    torch.manual_seed(seed)
    batch = slot_batch([own for own, _ in drawn], [new for _, new in drawn], common, window)
    total = len(batch.slots)
    query = torch.randn(1, KEY_HEADS * GROUPS, total, SIZE)
    key, value = torch.randn(2, 1, KEY_HEADS, total, SIZE).unbind()
    layer: Any = SimpleNamespace(layer_idx=0)
    mixed, _ = slot_attention(layer, query, key, value, None, sliding_window=window, slot_batch=batch)
    torch.testing.assert_close(mixed[0], alone(batch, query, window))


def test_neighbouring_slots_with_drafts_of_different_lengths_are_attended_over_at_once() -> None:
    batch = slot_batch([20, 30, 40, 50], [1, 8, 1, 4], common=0, window=None)
    (part,) = batch.plan.segments
    assert (part.rows, part.tokens) == (4, 8)
    assert len(batch.slots) == 14
