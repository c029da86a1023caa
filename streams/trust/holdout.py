"""The holdout: which tasks the loop must not learn from.

Decided by a keyed hash of the task id alone, so nothing can drift, and for a few tasks by the operator, who pins them.

Variants of one task, which differ in what follows a `~` in their ids, are all on the same side. So is a task under all
of its names, as far as they are known.
"""

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Self

from pydantic import Field, PrivateAttr, field_serializer

from ratchet_client.events import Identity, family
from ratchet_client.settings import FrozenModel


class Split(StrEnum):
    """`selection` tasks judge every candidate; `confirmation` tasks are kept for the rare last word."""

    TRAIN = "train"
    SELECTION = "selection"
    CONFIRMATION = "confirmation"


class HoldoutSettings(FrozenModel):
    """Settings of the holdout. Changing any of these makes every earlier figure incomparable."""

    key: str = Field(default="ratchet", min_length=1, description="Key of the hash; keep it secret from task authors.")
    selection: float = Field(default=0.3, ge=0, le=1, description="Share of tasks that gates are played on.")
    confirmation: float = Field(default=0.1, ge=0, le=1, description="Share of tasks kept for confirmation.")
    # Left out where there are none, so that the digests of snapshots without any stay what they were.
    pinned: frozenset[Identity] = Field(
        default=frozenset(),
        exclude_if=lambda pinned: not pinned,
        description="Ids of tasks that are held out whatever their hash. Those of gate.golden are added.",
    )

    _other_names: Mapping[str, tuple[str, ...]] = PrivateAttr(default_factory=dict)

    def knowing(self, other_names: Mapping[str, tuple[str, ...]]) -> Self:
        """The same holdout, which knows by what other names tasks are called; each name has the ids of its tasks.

        An episode that names no task is known by its opening: without this, it could be one of a held-out task and
        fall into the train split.
        """
        known = self.model_copy()
        known._other_names = dict(other_names)
        return known

    def split(self, task_id: str) -> Split:
        """The split of a task. A pinned task, with all of its variants, belongs to `selection` for good.

        A name that several tasks share is held out if one of them is.

        >>> HoldoutSettings(selection=0, confirmation=0).split("orders/17").value
        'train'
        >>> HoldoutSettings(selection=0, confirmation=0, pinned={"orders/17~late"}).split("orders/17").value
        'selection'
        """
        return max(map(self._split_of, self._other_names.get(task_id, (task_id,))), key=list(Split).index)

    def _split_of(self, task_id: str) -> Split:
        group = family(task_id)
        if group in _groups(self.pinned):
            return Split.SELECTION
        digest = hashlib.blake2b(group.encode(), key=self.key.encode()[:64], digest_size=8).digest()
        position = int.from_bytes(digest) / 2**64
        if position < self.selection:
            return Split.SELECTION
        if position < self.selection + self.confirmation:
            return Split.CONFIRMATION
        return Split.TRAIN

    @field_serializer("pinned", when_used="always")
    def _in_order(self, pinned: frozenset[str]) -> list[str]:
        # The order of a set differs from process to process, and what is hashed must not.
        return sorted(pinned)


# Not a property that is kept in the settings: a copy with other pinned tasks would keep it.
@lru_cache(16)
def _groups(pinned: frozenset[str]) -> frozenset[str]:
    return frozenset(family(task_id) for task_id in pinned)
