"""The processes of a running Ratchet by their names, and what each takes of memory and handles over time."""

import ctypes
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from daemon.demo.profiling import name_of
from daemon.roles import Role
from tests.soak.faults import BROKER, ENGINE, SUPERVISOR
from tests.soak.growth import Point

MEASURED = (*(role.value for role in Role if role is not Role.OTLP), ENGINE, BROKER, SUPERVISOR)
_ROOT, _OTHER = "demo", "other"
_EVERY_S = 2.0
_MIB = 2**20
_PR_SET_CHILD_SUBREAPER = 36


def processes_of(supervisor: int) -> dict[str, list[psutil.Process]]:
    """The processes that come from a supervisor, by name. What a role starts besides sandboxes is not in it.

    The supervisor itself is; nothing is where it does not run.
    """
    found = defaultdict[str, list[psutil.Process]](list)
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(supervisor)
        found[SUPERVISOR].append(root)
        names = {root.pid: _ROOT}
        # A parent comes before its children.
        for process in root.children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                parent = names.get(process.ppid(), _OTHER)
                names[process.pid] = name_of(process.cmdline(), parent)
                if names[process.pid] != parent:
                    found[names[process.pid]].append(process)
    return found


def adopt_orphans() -> None:
    """Have what outlives its parent become a child of this process, so that it can be found. Only on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def orphans(own: Collection[int]) -> list[psutil.Process]:
    """The children of this process that it did not start, which are those in `own`. What has ended is taken away."""
    found = []
    for process in psutil.Process().children():
        if process.pid in own:
            continue
        with suppress(psutil.NoSuchProcess, ChildProcessError):
            if process.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(process.pid, os.WNOHANG)
            else:
                found.append(process)
    return found


@dataclass(slots=True)
class Series:
    """Of one process from its start to its end: (monotonic seconds, MiB resident) and (seconds, handles)."""

    rss: list[Point] = field(default_factory=list)
    handles: list[Point] = field(default_factory=list)


class Samples:
    """Samples the processes below `supervisor`, whose process id may change, in a thread."""

    def __init__(self) -> None:
        self.supervisor: int | None = None
        self.series: dict[str, dict[tuple[int, float], Series]] = defaultdict(dict)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="samples", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_EVERY_S):
            self._sample()

    def _sample(self) -> None:
        found = processes_of(self.supervisor or 0)
        at = round(time.monotonic(), 1)
        for name in MEASURED:
            for process in found.get(name, [])[:1]:
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    life = self.series[name].setdefault((process.pid, process.create_time()), Series())
                    rss, handles = process.memory_info().rss / _MIB, process.num_fds()
                    life.rss.append((at, round(rss, 2)))
                    life.handles.append((at, float(handles)))
