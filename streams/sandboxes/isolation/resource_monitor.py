"""Watches what sandboxes use, and kills one that passes a limit that the kernel does not hold it to. For the pool.

The kernel limits each process by itself; the sums over all processes of a sandbox are taken here, ten times a second.
"""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from streams.errors import SandboxError
from streams.sandboxes.isolation.launching import IN_MEMORY
from streams.sandboxes.isolation.settings import Limits
from streams.sandboxes.isolation.tree import Process, descendants, kill_tree, processes, processes_and_dead
from streams.sandboxes.isolation.usage import deleted_files_of, files_in, files_in_memory, memory_of

log = structlog.get_logger()

_INTERVAL_S = 0.1
_MIB = 2**20
# Looking through a home of many files takes long; no more than this share of the time goes there, unless the file
# system has filled up so far meanwhile that the sandbox may have passed its limit.
_FILES_SHARE = 0.1


@dataclass(eq=False, slots=True)
class Watch:
    """One sandbox. `root` is its first process, which the pool started; `started` tells it from others of its number.

    `breach` says which limit it passed once it is killed for that, and is empty before.
    """

    root: int
    started: int
    limits: Limits
    files: Path | None
    breach: str = ""
    _renewed: bool = True
    _cpu_s: float = 0.0
    _cpu_lost_s: float = 0.0
    _cpu_before_s: float = 0.0
    _look_again: float = 0.0
    _least_free: float = 0.0

    def renew(self) -> None:
        """A request begins, and with it a new allowance of processor time."""
        self._renewed = True

    def kill(self) -> None:
        """Kill everything that the sandbox has started, and return when it is dead; the root is the last.

        It may be done again, and when the root is dead. Raises `SandboxError` when something does not die.
        """
        if self._lives(processes()):
            kill_tree(self.root)

    def examine(self, everything: list[Process]) -> None:
        """Kill the sandbox if it has passed a limit. `everything` are all processes of the machine, dead ones too."""
        root = next((each for each in everything if each.pid == self.root and each.started == self.started), None)
        if self.breach or root is None or root.dead:
            return
        below = descendants(self.root, everything)
        self.breach = self._excess([each for each in below if not each.dead]) or self._excess_of_time([root, *below])
        if self.breach:
            log.warning("sandbox killed", sandbox=self.root, reason=self.breach)
            self.kill()

    def _lives(self, everything: list[Process]) -> bool:
        return any(process.pid == self.root and process.started == self.started for process in everything)

    def _excess(self, below: list[Process]) -> str:
        limits = self.limits
        if (threads := sum(process.threads for process in below)) > limits.processes:
            return f"it had {threads} processes and threads, and {limits.processes} are allowed"
        # What several processes share is resident in each, so the exact figure is asked for only when it may matter.
        most = limits.memory_mib * _MIB
        if sum(process.resident for process in below) > most and (memory := sum(map(memory_of, below))) > most:
            return f"it used {memory // _MIB} MiB of memory, and {limits.memory_mib} are allowed"
        return self._excess_of_files(below)

    def _excess_of_time(self, whole: list[Process]) -> str:
        """`whole` are all of the sandbox, the root too, to which the time of orphans falls.

        Time that vanishes is that of a process whose parent does not ask how it ended: nobody took it over.
        """
        cpu_s = sum(process.cpu_s for process in whole)
        self._cpu_lost_s += max(0.0, self._cpu_s - cpu_s)
        self._cpu_s = cpu_s
        spent_s = cpu_s + self._cpu_lost_s
        if self._renewed:
            self._renewed, self._cpu_before_s = False, spent_s
        if (used_s := spent_s - self._cpu_before_s) > self.limits.cpu_s:
            return f"it used {used_s:.0f} s of processor time for one request, and {self.limits.cpu_s:g} are allowed"
        return ""

    def _excess_of_files(self, below: list[Process]) -> str:
        begun, most = time.monotonic(), self.limits.disk_mib * _MIB
        free = 0.0 if self.files is None else _free(self.files)
        if begun < self._look_again and free >= self._least_free:
            return ""
        try:
            if self.files is None:
                size = sum(files_in_memory(process, folder) for process in below[:1] for folder in IN_MEMORY)
            else:
                size = files_in(self.files, most) + sum(map(deleted_files_of, below))
        except OSError as hidden:
            return f"it keeps files where they cannot be counted: {hidden.strerror}"
        finally:
            self._look_again = time.monotonic() + (time.monotonic() - begun) / _FILES_SHARE
        self._least_free = free - (most - size)
        if size > most:
            return f"it kept {size // _MIB} MiB of files, and {self.limits.disk_mib} are allowed"
        return ""


def _free(folder: Path) -> float:
    """The bytes that are free in the file system of `folder`, which may be gone."""
    try:
        held = os.statvfs(folder)
    except FileNotFoundError:
        return 0.0
    return held.f_bavail * held.f_frsize


class ResourceMonitor:
    """Watches any number of sandboxes, on a thread of its own. A context manager; ending it kills no sandbox."""

    def __init__(self) -> None:
        self._watches: frozenset[Watch] = frozenset()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sandbox-resource-monitor", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def watch(self, root: int, limits: Limits, files: Path | None) -> Watch:
        """Watch the sandbox whose first process is `root`, a child of this process; `files` as its launch has it.

        Raises `SandboxError` when it is dead already, or when nothing is watched any more.
        """
        if not self._thread.is_alive():
            raise SandboxError(
                "the resource monitor does not run, and no sandbox may without it. Start the pool again."
            )
        started = next((process.started for process in processes() if process.pid == root), None)
        if started is None:
            raise SandboxError(f"the sandbox process {root} died at once. See what it wrote to standard error.")
        watch = Watch(root, started, limits, files)
        self._watches |= {watch}
        return watch

    def forget(self, watch: Watch) -> None:
        """Watch it no more."""
        self._watches -= {watch}

    def _run(self) -> None:
        while not self._ended.wait(_INTERVAL_S):
            if watches := self._watches:
                everything = processes_and_dead()
                for watch in watches:
                    try:
                        watch.examine(everything)
                    except SandboxError as undying:
                        log.error("sandbox not killed", sandbox=watch.root, error=str(undying))
