"""The counters of the otlp role, as its `/status` shows them. All figures are since the start of the process."""

import threading
from collections import Counter
from collections.abc import Mapping

from pydantic import Field

from streams.messages import Record

# The names of scopes and operations are the senders'.
_MAX_NAMES = 100
OTHERS = "(others)"


class OtlpStatus(Record):
    """Spans and log records on their way in, and what was assembled of them."""

    accepted: int = 0
    rejected: int = 0
    ignored: int = 0
    refused_requests: int = 0
    repeated: int = 0
    unreadable: int = 0
    steps: int = 0
    outcomes: int = 0
    without_content: int = 0
    unusable_evaluations: int = 0
    too_large: int = 0
    absences: dict[str, int] = Field(default={}, description="Model calls without content, by the reason.")
    unrecognised: dict[str, int] = Field(
        default={}, description="Spans like model calls in a dialect that is not understood, by scope and operation."
    )


class Tally:
    """Counters that several threads add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._status = OtlpStatus()

    def add(self, more: OtlpStatus) -> None:
        with self._lock:
            sums = {name: _sum(getattr(self._status, name), getattr(more, name)) for name in OtlpStatus.model_fields}
            self._status = OtlpStatus.model_validate(sums)

    @property
    def status(self) -> OtlpStatus:
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
