"""Assignment of prompts to slots, so that as few of their tokens as possible are computed again. Pure bookkeeping.

The runner asks `SlotTable.place` for every sequence that it admits.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int32]

_NO_TOKEN = -1
# A cached chat whose end is thrown away is reused in place if that end is at most this long: a reply that was cut, or
# written with other tokens when it came back in the next prompt.
_DEAD_TAIL = 16
# Waiting for another prompt's prefill costs a round, which is worth some tokens.
_WORTH_WAITING = 16
# Slots that share this many tokens are compared further.
_COMPARED_FIRST = 64
# Attention in two parts costs some small operations more; so many keys that are not read again are worth them.
_WORTH_SHARING = 1024


@dataclass(frozen=True, slots=True)
class Placement:
    """The prompt goes to `slot`, whose first `reused` tokens it needs not compute once `copy_from` was copied there."""

    slot: int
    reused: int
    copy_from: int | None


@dataclass(frozen=True, slots=True)
class SharedTokens:
    """`slots` that hold the same first `length` tokens, all of them computed."""

    slots: tuple[int, ...]
    length: int


class SlotTable:
    """The tokens in every slot: those whose keys and values are there, and those that a sequence will yet compute."""

    def __init__(self, slots: int, max_length: int) -> None:
        self._tokens = np.full((slots, max_length), _NO_TOKEN, dtype=np.int32)
        self._computed = np.zeros(slots, dtype=np.int64)
        self._planned = np.zeros(slots, dtype=np.int64)
        self._busy = np.zeros(slots, dtype=bool)
        self._used = np.zeros(slots, dtype=np.int64)
        self._clock = 0

    @property
    def idle_count(self) -> int:
        return int((~self._busy).sum())

    def place(self, prompt: Tokens, *, most: int | None = None) -> Placement | None:
        """Claim an idle slot, of which there must be one, for `prompt`, of at least one token.

        None means to ask again after the next forward pass: a prompt that is being computed shares more with this one
        than any cached slot does. At most `most` tokens are reused; by default all but the last,
        whose logits are wanted.
        """
        idle = np.flatnonzero(~self._busy)
        shared = np.minimum(self._shared_with(prompt), len(prompt) - 1 if most is None else most)
        cached = np.minimum(shared, self._computed)
        best = int(cached.argmax())
        reused = int(cached[best])
        coming = int(shared[self._busy].max(initial=0))
        if coming >= reused + _WORTH_WAITING:
            return None
        if reused == 0:
            return self._claim(self._oldest(idle), prompt, 0, None)
        # Of slots that share as much, one that ends there anyway is taken as it is.
        equals = np.flatnonzero((cached == reused) & ~self._busy & (self._computed - reused <= _DEAD_TAIL))
        if equals.size:
            return self._claim(int(equals[0]), prompt, reused, None)
        others = idle[idle != best]
        if others.size == 0:
            return self._claim(best, prompt, reused, None)
        self._touch(best)
        return self._claim(self._oldest(others), prompt, reused, best)

    def shared_prefixes(self, slots: Iterable[int]) -> list[SharedTokens]:
        """What of `slots` begins alike, where it is worth to attend over it once; each slot lies in one at most."""
        alike: dict[bytes, list[int]] = defaultdict(list)
        for slot in slots:
            if self._computed[slot] >= _COMPARED_FIRST:
                alike[self._tokens[slot, :_COMPARED_FIRST].tobytes()].append(slot)
        found = []
        for group in alike.values():
            shortest = int(self._computed[group].min())
            differs = (self._tokens[group, :shortest] != self._tokens[group[0], :shortest]).any(axis=0)
            length = int(differs.argmax()) if differs.any() else shortest
            if (len(group) - 1) * length >= _WORTH_SHARING:
                found.append(SharedTokens(tuple(group), length))
        return found

    def tokens(self, slot: int) -> Tokens:
        """The tokens of the sequence in `slot`: its prompt and what it has drawn."""
        return self._tokens[slot, : self._planned[slot]]

    def append(self, slot: int, token: int) -> None:
        """Plan one more token, which the sequence in `slot` has just drawn."""
        self._tokens[slot, self._planned[slot]] = token
        self._planned[slot] += 1

    def computed(self, slot: int, length: int) -> None:
        """The first `length` tokens of `slot` now have their keys and values."""
        self._computed[slot] = length

    def release(self, slot: int) -> None:
        """The sequence has ended; what it computed stays to be reused until the slot is needed."""
        self._tokens[slot, self._computed[slot] : self._planned[slot]] = _NO_TOKEN
        self._planned[slot] = self._computed[slot]
        self._busy[slot] = False
        self._touch(slot)

    def _shared_with(self, prompt: Tokens) -> npt.NDArray[np.int64]:
        differs = self._tokens[:, : len(prompt)] != prompt
        return np.where(differs.any(axis=1), differs.argmax(axis=1), len(prompt))

    def _oldest(self, candidates: npt.NDArray[np.intp]) -> int:
        return int(candidates[self._used[candidates].argmin()])

    def _claim(self, slot: int, prompt: Tokens, reused: int, copy_from: int | None) -> Placement:
        self._tokens[slot] = _NO_TOKEN
        self._tokens[slot, : len(prompt)] = prompt
        self._computed[slot] = reused
        self._planned[slot] = len(prompt)
        self._busy[slot] = True
        self._touch(slot)
        return Placement(slot, reused, copy_from)

    def _touch(self, slot: int) -> None:
        self._clock += 1
        self._used[slot] = self._clock
