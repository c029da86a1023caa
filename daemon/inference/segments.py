"""What the new tokens of one forward pass attend over: runs of neighbouring slots, and prefixes that slots share.

The runner plans a pass with `plan_attention`, and `attention.py` carries it out in every layer.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from daemon.inference.drafting import LONGEST_DRAFT
from daemon.inference.slots import SlotTable

# What a reply gets in one pass: the token that was drawn last, and a draft.
_FEW = 1 + LONGEST_DRAFT


@dataclass(frozen=True, slots=True)
class NewTokens:
    """`count` new tokens of the sequence in `slot`, which has `before` already."""

    slot: int
    before: int
    count: int


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """Tokens that several slots begin with; the keys and values of one of them serve all.

    Attributes:
        rows: places of the new tokens that attend over them, among all of the pass.
        slot: where their keys and values are read.
        length: how many they are.
    """

    rows: torch.Tensor
    slot: int
    length: int


@dataclass(frozen=True, slots=True)
class SlotSegment:
    """A run of neighbouring slots that are attended over at once.

    Attributes:
        places: of the queries among all new tokens of the pass, `tokens` of each slot. A slot that gets fewer has its
            last one several times, with the same result each time.
        first_slot, rows: the slots are `first_slot` to `first_slot + rows - 1`.
        tokens: the most new tokens that one of them gets.
        start: tokens that lie in a shared prefix, and are not attended over here.
        length: tokens of the longest slot, the new ones and those before `start` included.
        mask: additive, of shape (rows, 1, query heads per key head * tokens, length - start); None lets everything
            through.
        windowed: the mask of layers that attend over the last positions only, by their number.
    """

    places: slice | torch.Tensor
    first_slot: int
    rows: int
    tokens: int
    start: int
    length: int
    mask: torch.Tensor | None
    windowed: dict[int, torch.Tensor]


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """Every new token of a pass is in one of the segments; those with a `start` each lie in one of `shared` too."""

    segments: tuple[SlotSegment, ...]
    shared: tuple[SharedPrefix, ...]


def plan_attention(
    new: Sequence[NewTokens],
    table: SlotTable,
    *,
    groups: int,
    dtype: torch.dtype,
    windows: Iterable[int] = (),
) -> AttentionPlan:
    """Plan the pass of `new`, which is ordered by slot.

    `groups` is the number of query heads that share a key head, `dtype` that of the queries, and `windows` are the
    numbers of last positions that some layers attend over: with these no prefix is shared.
    """
    windows = tuple(windows)
    offsets = dict(zip((item.slot for item in new), accumulate((item.count for item in new), initial=0), strict=False))
    starts: dict[int, int] = {}
    shared = []
    if not windows:
        counts = {item.slot: item.count for item in new if item.count <= _FEW}
        for prefix in table.shared_prefixes(counts):
            rows = torch.tensor([offsets[slot] + at for slot in prefix.slots for at in range(counts[slot])])
            shared.append(SharedPrefix(rows, prefix.slots[0], prefix.length))
            starts |= dict.fromkeys(prefix.slots, prefix.length)
    segments = tuple(
        _segment(run, offsets[run[0].slot], starts.get(run[0].slot, 0), groups, dtype, windows)
        for run in _runs(new, starts)
    )
    return AttentionPlan(segments, tuple(shared))


def _segment(
    run: Sequence[NewTokens], offset: int, start: int, groups: int, dtype: torch.dtype, windows: Iterable[int]
) -> SlotSegment:
    """The segment of a run, whose new tokens lie at `offset` among those of the pass, with its masks."""
    before = torch.tensor([item.before for item in run])
    counts = torch.tensor([item.count for item in run])
    tokens, length = int(counts.max()), int((before + counts).max())
    at = torch.arange(tokens).minimum(counts[:, None] - 1)
    equal = len(run) * tokens == int(counts.sum())
    first = offset + counts.cumsum(0) - counts
    places = slice(offset, offset + len(run) * tokens) if equal else (first[:, None] + at).flatten()

    def mask(window: int) -> torch.Tensor:
        last_seen = (before[:, None] + at)[:, :, None]
        column = torch.arange(start, length)[None, None, :]
        hidden = (column > last_seen) | (column <= last_seen - window)
        return torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf)[:, None].repeat(1, 1, groups, 1)

    whole = mask(length) if tokens > 1 or int(before.min()) != int(before.max()) else None
    windowed = {window: mask(window) for window in windows if length > window}
    return SlotSegment(places, run[0].slot, len(run), tokens, start, length, whole, windowed)


def _runs(new: Sequence[NewTokens], starts: dict[int, int]) -> list[list[NewTokens]]:
    """Few tokens of neighbouring slots together, unless they begin elsewhere; all other sequences alone.

    Only few tokens are joined: the mask of a longer run would be as large as the products that it saves.
    """
    runs: list[list[NewTokens]] = []
    for item in new:
        last = runs[-1][-1] if runs else None
        joins = (
            last is not None
            and max(item.count, last.count) <= _FEW
            and item.slot == last.slot + 1
            and starts.get(item.slot) == starts.get(last.slot)
        )
        if joins:
            runs[-1].append(item)
        else:
            runs.append([item])
    return runs
