"""The processes of a sandbox: all that descend from the one that the pool started. For the resource monitor and the
supervisor.

Every tier has a process at the root that orphans fall to, so nothing leaves the tree by a double fork or a new session.
"""

import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from streams.errors import SandboxError

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_KILL_TIMEOUT_S = 30.0


class Process(NamedTuple):
    """A process at one moment. `started`, in ticks since the machine did, tells it from others of the same number.

    `resident` is in bytes, and `cpu_s` has the time of its reaped children too. `dead` is one that waits to be reaped.
    """

    pid: int
    parent: int
    cpu_s: float
    threads: int
    started: int
    resident: int
    dead: bool = False


def processes() -> list[Process]:
    """All processes of the machine that this one can see, without those that are dead and only wait to be reaped."""
    return [process for process in processes_and_dead() if not process.dead]


def processes_and_dead() -> list[Process]:
    """All of them, and those whose processor time nobody has taken over yet, because they wait to be reaped."""
    return [process for name in os.listdir("/proc") if name.isdecimal() and (process := _read(name)) is not None]


def _read(pid: str) -> Process | None:
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return None  # it has ended since
    try:
        stat = os.read(file, 1024)
    except OSError:
        return None
    finally:
        os.close(file)
    # The name is in parentheses and may hold any character. Of proc_pid_stat(5), this begins with field 3.
    fields = stat[stat.rindex(b")") + 2 :].split(maxsplit=22)
    if fields[0] == b"X":
        return None
    cpu_s = sum(map(int, fields[11:15])) / _TICKS_PER_S
    resident, dead = int(fields[21]) * _PAGE_BYTES, fields[0] == b"Z"
    return Process(int(pid), int(fields[1]), cpu_s, int(fields[17]), int(fields[19]), resident, dead)


def descendants(root: int, among: Iterable[Process]) -> list[Process]:
    """Those that descend from `root`, parents before children."""
    children: defaultdict[int, list[Process]] = defaultdict(list)
    for process in among:
        children[process.parent].append(process)
    below = list(children[root])
    for process in below:
        below += children[process.pid]
    return below


def kill_tree(root: int) -> None:
    """Kill all that descends from `root`, and `root` last. Returns when nothing below it lives.

    The root must be a child of this process, and one that orphans fall to. Raises `SandboxError` when something does
    not die.
    """
    deadline = time.monotonic() + _KILL_TIMEOUT_S
    # What it started after a look at its children, and before its own death, would live on and hold its pipes.
    _stop(root, deadline)
    _kill_below(root, deadline)
    with suppress(ProcessLookupError):
        os.kill(root, signal.SIGKILL)


def _stop(root: int, deadline: float) -> None:
    """Return when `root` runs no more: the signal only asks for that, and a fork that has begun is still done."""
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(root, signal.SIGSTOP)
        while os.waitid(os.P_PID, root, os.WSTOPPED | os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            _wait(deadline, f"the sandbox process {root} does not stop")


def _kill_below(root: int, deadline: float) -> None:
    """Kill all below `root`. It is stopped, so the dead that have fallen to it are still there to be seen.

    A look takes time: a process that another starts meanwhile, and that is where the look has been, is not seen, though
    its parent may be dead when the look comes to it. Two looks that find the same dead, and nothing alive, missed none.
    """
    seen: set[tuple[int, int]] | None = None
    while True:
        below = descendants(root, processes_and_dead())
        living = [process.pid for process in below if not process.dead]
        if not living and seen == {(process.pid, process.started) for process in below}:
            return
        seen = {(process.pid, process.started) for process in below}
        for pid in living:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if living:
            _wait(deadline, f"{len(living)} processes of the sandbox {root} do not die, such as {living[0]}")


def _wait(deadline: float, undying: str) -> None:
    if time.monotonic() > deadline:
        raise SandboxError(
            f"{undying}. See what it waits for in /proc/PID/stack; a file system that hangs is the usual cause."
        )
    time.sleep(0.001)
