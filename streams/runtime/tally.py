"""Counters of one process, as its `/status` shows them. All figures are since the start of the process."""

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Generic, TypeVar

from ratchet_client.settings import FrozenModel

# Names that are counted are often the senders'.
_MAX_NAMES = 100
OTHERS = "(others)"

Counts = TypeVar("Counts", bound=FrozenModel)


class Tally(Generic[Counts]):
    """Sums of a model whose fields are counts, or counts by name. Several threads may add to them."""

    def __init__(self, none: Counts) -> None:
        self._lock = threading.Lock()
        self._status = none

    def add(self, more: Counts) -> None:
        with self._lock:
            names = type(self._status).model_fields
            sums = {name: _sum(getattr(self._status, name), getattr(more, name)) for name in names}
            self._status = type(self._status).model_validate(sums)

    @property
    def status(self) -> Counts:
        return self._status


def _sum(one: int | Mapping[str, int], other: int | Mapping[str, int]) -> int | dict[str, int]:
    if isinstance(one, int) and isinstance(other, int):
        return one + other
    assert not isinstance(one, int)  # a field has one type
    assert not isinstance(other, int)
    counts = Counter(one)
    for name, count in other.items():
        counts[name if name in counts or len(counts) < _MAX_NAMES else OTHERS] += count
    return dict(counts)
