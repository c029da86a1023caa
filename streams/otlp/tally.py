"""The counters of the otlp role, as its `/status` shows them. All figures are since the start of the process."""

import threading

from streams.events import Record


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


class Tally:
    """Counters that several threads add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._status = OtlpStatus()

    def add(self, more: OtlpStatus) -> None:
        with self._lock:
            sums = {name: getattr(self._status, name) + getattr(more, name) for name in OtlpStatus.model_fields}
            self._status = OtlpStatus(**sums)

    @property
    def status(self) -> OtlpStatus:
        return self._status
