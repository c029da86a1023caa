"""Counts the resumptions of a trial, and pauses between them: on disk, so that no restart begins a new count.

The file is one line: the number, and when the last one began, in seconds since 1970.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path

from daemon.learning.task_lists import trial_number
from daemon.registry.registry import Registry
from evaluation.rollout_log import rollouts_path
from streams.errors import GateError
from streams.runtime.files import write_atomically

RESUMPTIONS = "resumptions"
"""The file beside a trial's rollouts; removed, the count begins again."""
MOST_RESUMPTIONS = 8
"""After so many a trial is left for a person to look at. The last comes after about 20 minutes of pauses."""
_LINE = re.compile(r"(?P<number>\d{1,6})(?: (?P<began>-?\d{1,15}(?:\.\d+)?))?\s*", re.ASCII)


def resumptions_path(registry: Registry, adapter: str) -> Path:
    """The file that counts the resumptions of the trial that `adapter` is in.

    One whose cycle is recorded counts by itself: what is left of it then is another thing.
    """
    return rollouts_path(registry.home, adapter, trial_number(registry, adapter)).with_name(RESUMPTIONS)


def read_resumptions(path: Path) -> tuple[int, float | None]:
    """The number of resumptions of the trial, and the time of the last; None where that is not known.

    Raises `GateError` for a file that says something else.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        return 0, None
    found = _LINE.fullmatch(text)
    if found is None:
        raise GateError(f"{path} is damaged: remove it, and the resumptions are counted from 0 again")
    return int(found["number"]), None if found["began"] is None else float(found["began"])


class Resumptions:
    """The resumptions that one process makes or takes over. After the nth, `pause_s` · 2ⁿ seconds are waited.

    `clock` is monotonic and `wall` the time of day, both in seconds. What an earlier process began is told by the
    latter, and looked at once: where it was set back meanwhile, one whole pause is waited and no more.
    """

    def __init__(
        self, pause_s: float, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self._pause_s = pause_s
        self._clock = clock
        self._wall = wall
        self._of: Path | None = None
        self._again_at = 0.0

    @property
    def left_s(self) -> float:
        """The rest of the pause of the trial that was asked about or counted last, in seconds."""
        return max(0.0, self._again_at - self._clock())

    def pause_s(self, path: Path) -> float:
        """The seconds to wait before the next resumption, 0 if none. Raises `GateError` for a damaged file."""
        number, began = read_resumptions(path)
        if began is None:
            return 0.0
        if path != self._of:
            pause, passed = self._pause_s * 2**number, self._wall() - began
            self._wait(path, max(0.0, pause - passed) if passed >= 0 else pause)
        return self.left_s

    def count(self, path: Path) -> int:
        """Count one more that begins now, on disk when this returns; its number. Raises `GateError` and `OSError`."""
        number = read_resumptions(path)[0] + 1
        write_atomically(path, f"{number} {self._wall():.3f}\n".encode())
        self._wait(path, self._pause_s * 2**number)
        return number

    def _wait(self, path: Path, seconds: float) -> None:
        self._of, self._again_at = path, self._clock() + seconds
