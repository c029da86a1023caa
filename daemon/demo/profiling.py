"""Samples what the processes of a demo take of the processor, every second and where a phase begins.

`ratchet demo --profile` alone imports it: it needs psutil, and matplotlib for the picture.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from daemon.console import Narrator
from daemon.demo.profile import Mark, Profile, Sample
from daemon.demo.profile_plot import draw
from daemon.roles import Role
from streams.runtime.files import write_atomically

PROFILE, PICTURE = "profile.json", "profile.svg"
_EVERY_S = 1.0
_DEMO, _OTHER = "demo", "other"
# What these wait for may have another name, and was seen under it.
_STARTERS = frozenset({_DEMO, *Role})
# A word of a command line, and the name of its process.
_NAMES = {
    "daemon.inference": "inference",
    "learners.trainer": "training",
    "--storage-engine": "broker",
    "--tasks": "agent",
}
_SANDBOX = "streams.sandboxes.worker"


def name_of(command: Sequence[str], parent: str) -> str:
    """The name of a process with this command line, whose parent has the name `parent`.

    Sandboxes are told by who started them; what the other processes start counts as theirs.

    >>> name_of(["python", "-m", "daemon.cli", "run", "--roles", "serve"], "demo")
    'serve'
    >>> name_of(["bwrap", "--", "python", "-m", "streams.sandboxes.worker"], "branch")
    'branch sandboxes'
    >>> name_of(["java"], "branch sandboxes")
    'branch sandboxes'
    """
    if parent.endswith("sandboxes"):
        return parent
    if _SANDBOX in command:
        return f"{parent} sandboxes"
    if parent != _DEMO:
        return parent
    if "--roles" in command[:-1]:
        return command[command.index("--roles") + 1]
    return next((name for word, name in _NAMES.items() if word in command), _OTHER)


class Sampler:
    """Reads what the process `root`, and all that come from it, take of the processor.

    Of a process that ended, what it did after its last sample is missing. It is not where another of the same name
    waited for it, as sandboxes, agents and the trainer do for most.
    """

    def __init__(self, root: psutil.Process) -> None:
        self._root = root
        self._seen = defaultdict[psutil.Process, float](float)
        self.used()

    def used(self) -> dict[str, float]:
        """Return the processor seconds of each process, by its name, since this was last asked."""
        names, first = {self._root.pid: _DEMO}, {self._root.pid: self._root}
        totals = defaultdict[psutil.Process, float](float)
        # A parent comes before its children.
        for process in (self._root, *self._root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied), process.oneshot():
                times, parent = process.cpu_times(), process.ppid()
                if process != self._root:
                    names[process.pid] = name_of(process.cmdline(), names.get(parent, _OTHER))
                name = names[process.pid]
                if name in _STARTERS or names.get(parent) != name:
                    first[process.pid] = process
                else:
                    first[process.pid] = first[parent]
                totals[first[process.pid]] += times.user + times.system
                if name not in _STARTERS:
                    totals[first[process.pid]] += times.children_user + times.children_system
        used = defaultdict[str, float](float)
        for process, seconds in totals.items():
            # One that ended is in the time of its parent a moment later.
            used[names[process.pid]] += max(0.0, seconds - self._seen[process])
            self._seen[process] = max(seconds, self._seen[process])
        return dict(used)


class Profiler:
    """Marks the phases of this process and takes samples meanwhile. Use it as a context manager."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._sampler = Sampler(psutil.Process())
        self._marks: list[Mark] = []
        self._samples: list[Sample] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="profiler", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._sample()

    def begin(self, phase: str) -> None:
        """Begin a phase, which ends the one before; nothing where it is this one."""
        if self._marks and self._marks[-1].phase == phase:
            return
        self._marks.append(Mark(phase=phase, at=self._sample() if self._marks else 0.0))

    def profile(self) -> Profile:
        return Profile.of(self._marks, self._samples)

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY_S):
            self._sample()

    def _sample(self) -> float:
        """Take a sample; return its time."""
        with self._lock:
            used = self._sampler.used()
            at = round(time.monotonic() - self._began, 3)
            self._samples.append(Sample(at=at, processor_s={name: round(used[name], 2) for name in used}))
            return at


@contextmanager
def profiled(home: Path, narrator: Narrator) -> Iterator[Callable[[str], None]]:
    """Yield what begins a phase. In the end, however it comes, write the profile and its picture into `home`."""
    profiler = Profiler()
    try:
        with profiler:
            yield profiler.begin
    finally:
        profile = profiler.profile()
        write_atomically(home / PROFILE, profile.model_dump_json(indent=2).encode() + b"\n")
        draw(profile, home / PICTURE)
        narrator.console.print(profile.table())
        narrator.say(f"the profile is {home / PROFILE}, drawn in {home / PICTURE}")
