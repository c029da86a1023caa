"""The pause after a cycle that failed before an adapter came of it: it doubles, and in the end more data is waited for.

The learn role asks before each cycle. Trials that fail are resumed instead (`resuming.py`).
"""

import time
from collections.abc import Callable

from daemon.learning.learned import Extent

MOST = 8
"""Failures in a row after which the same data is left. The last attempt comes after about 20 minutes of pauses."""


class Attempts:
    """Counts failures in a row. `pause_s` is the first pause; `clock` is monotonic, in seconds."""

    def __init__(self, pause_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause_s = pause_s
        self._clock = clock
        self._again_at = 0.0
        self.failures = 0
        self.error = ""
        self.given_up = Extent()

    def failed(self, error: str, tried: Extent | None, before: int | None = None) -> None:
        """One more has failed of `error`, on data up to `tried`; None where no snapshot was made.

        `before` are failures of earlier processes.
        """
        self.failures = (self.failures if before is None else before) + 1
        self.error = error
        if self.failures >= MOST and tried is not None:
            self.failures, self.given_up = 0, tried
        self._again_at = self._clock() + self._pause_s * 2 ** min(self.failures, MOST)

    def succeeded(self) -> None:
        """A cycle came to its end."""
        self.failures, self.error, self._again_at = 0, "", 0.0

    def pause_s(self) -> float:
        """The seconds to wait before the next attempt, 0 if none."""
        return max(0.0, self._again_at - self._clock())
