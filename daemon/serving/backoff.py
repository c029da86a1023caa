"""Pauses between attempts at what fails, each twice as long as the one before."""

import time

LONGEST_PAUSE_S = 60.0


class Backoff:
    """Says when the next attempt is due. It always is until an attempt fails."""

    def __init__(self, first_s: float, longest_s: float = LONGEST_PAUSE_S) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self.pause_s = 0.0
        self._next = 0.0

    @property
    def due(self) -> bool:
        return time.monotonic() >= self._next

    def failed(self) -> None:
        """Wait before the next attempt, longer than the last time."""
        self.pause_s = min(max(2 * self.pause_s, self._first_s), self._longest_s)
        self._next = time.monotonic() + self.pause_s

    def reset(self) -> None:
        """Begin again: an attempt succeeded, or what failed is another one now."""
        self.pause_s = 0.0
        self._next = 0.0
