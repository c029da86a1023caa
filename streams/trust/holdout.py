"""The holdout: which tasks the loop must not learn from.

Decided by a keyed hash of the task id alone, so nothing can drift.

Variants of one task, which differ in what follows a `~` in their ids, are all on the same side.
"""

import hashlib
from enum import StrEnum

from pydantic import Field

from streams.events import VARIANT_MARK
from streams.settings import FrozenModel


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

    def split(self, task_id: str) -> Split:
        """The split of a task.

        >>> HoldoutSettings(selection=0, confirmation=0).split("orders/17").value
        'train'
        """
        group = task_id.partition(VARIANT_MARK)[0]
        digest = hashlib.blake2b(group.encode(), key=self.key.encode()[:64], digest_size=8).digest()
        position = int.from_bytes(digest) / 2**64
        if position < self.selection:
            return Split.SELECTION
        if position < self.selection + self.confirmation:
            return Split.CONFIRMATION
        return Split.TRAIN
