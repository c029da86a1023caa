"""The record role, started again whenever it ends, as a supervisor does it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from streams.runtime.processes import die_with_parent

ROOT = Path(__file__).parents[1]
RATCHET = (sys.executable, "-m", "daemon.cli")


@contextmanager
def kept_up(environment: dict[str, str], log: Path) -> Iterator[list[int]]:
    """The record role as a supervisor keeps it up; yields the exit statuses so far."""
    parent, over, statuses = os.getpid(), Event(), list[int]()
    running: list[subprocess.Popen[bytes]] = []

    def keep_up() -> None:
        while not over.is_set():
            with log.open("ab") as output:
                process = subprocess.Popen(
                    [*RATCHET, "run", "--roles", "record"],
                    cwd=ROOT,
                    env=environment,
                    stdout=output,
                    stderr=output,
                    umask=0o022,
                    preexec_fn=lambda: die_with_parent(parent),
                )
            running[:] = [process]
            statuses.append(process.wait())

    # The signal of a parent's end follows the thread that started a process.
    thread = Thread(target=keep_up)
    thread.start()
    try:
        yield statuses
    finally:
        over.set()
        running[0].terminate()
        thread.join()
