"""A process that may be killed at any instant and is started again, as a supervisor would."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from ratchet_client.crash_points import VARIABLE
from streams.runtime.processes import die_with_parent

ROOT = Path(__file__).parents[2]
_PAUSE_S = 0.5


@dataclass(slots=True, eq=False)
class Victim:
    """`python -m MODULE ARGUMENTS`, whose output goes to `log`. `revivals` counts deaths that were not ordered."""

    name: str
    module: str
    arguments: tuple[str, ...]
    log: Path
    revivals: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _died_at: float | None = field(default=None, repr=False)

    def start(self, crash_at: str = "") -> None:
        """Start it; with `crash_at` it dies at that crash point. The calling thread must outlive it."""
        parent = os.getpid()
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module, *self.arguments],
                cwd=ROOT,
                env={**os.environ, VARIABLE: crash_at},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=lambda: die_with_parent(parent),
            )
        self._died_at = None

    @property
    def status(self) -> int | None:
        """Its exit status, or None while it runs or when it was never started."""
        return self._process.poll() if self._process else None

    @property
    def pid(self) -> int | None:
        """The id of the process that was started last."""
        return self._process.pid if self._process else None

    def end(self, number: signal.Signals, within_s: float = 60.0) -> int:
        """Send it the signal and wait until it is gone; returns the exit status."""
        if self._process is None:
            return 0
        self._process.send_signal(number)
        return self._process.wait(within_s)

    def revive(self) -> None:
        """Start it again if it ended by itself and not well, and some time after it did."""
        if self.status in (None, 0):
            return
        if self._died_at is None:
            self._died_at = time.monotonic()
        elif time.monotonic() - self._died_at > _PAUSE_S:
            self.revivals += 1
            self.start()

    def last_words(self, size: int = 3000) -> str:
        """The end of its output."""
        return self.log.read_text(errors="replace")[-size:] if self.log.exists() else ""
