"""Processor time of groups of processes between two moments, for benchmarks of several processes at once."""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import psutil

_BUSY = ("user", "nice", "system", "irq", "softirq")


@dataclass(frozen=True, slots=True)
class CoreSeconds:
    """Processor time in seconds since each process began: of named groups, and of the whole machine.

    `at` is the moment on the monotonic clock, in seconds. `machine` is the busy time of all programs together.
    """

    at: float
    groups: Mapping[str, float]
    machine: float

    @classmethod
    def of(cls, processes: Mapping[str, int]) -> Self:
        """Of these processes, by their ids, each without and, as `NAME/children`, of all that it started."""
        groups = {}
        for name, pid in processes.items():
            process = psutil.Process(pid)
            own, ended = _used(process)
            groups[name] = own
            if started := ended + sum(sum(_used(child)) for child in process.children(recursive=True)):
                groups[f"{name}/children"] = started
        times = psutil.cpu_times()
        return cls(time.monotonic(), groups, sum(getattr(times, field) for field in _BUSY))

    def since(self, earlier: "CoreSeconds") -> "CoreSeconds":
        """What was used since; `at` is then the seconds that passed."""
        groups = {name: used - earlier.groups.get(name, 0.0) for name, used in self.groups.items()}
        return CoreSeconds(self.at - earlier.at, groups, self.machine - earlier.machine)

    @property
    def others(self) -> float:
        """What other programs used."""
        return max(0.0, self.machine - sum(self.groups.values()))


def _used(process: psutil.Process) -> tuple[float, float]:
    """What it used itself, and what those used that it started and that have ended; nothing where it has ended."""
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system), float(times.children_user + times.children_system)
    return 0.0, 0.0
