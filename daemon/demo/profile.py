"""The time of a demo by phase: the clock's, and the processor's of each of its processes."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from rich.table import Table

from ratchet_client.settings import FrozenModel


class Mark(FrozenModel):
    """The beginning of a phase, which ends the phase before. Times are seconds from the start."""

    phase: str
    at: float


class Sample(FrozenModel):
    """The processor seconds of each process since the sample before; of those that run `at` this time."""

    at: float
    processor_s: Mapping[str, float]


class Use(FrozenModel):
    """Processor seconds, of all threads, and seconds without one."""

    processor_s: float
    idle_s: float


class PhaseUse(FrozenModel):
    """A phase from `begin` to `end`, and the use of each process in it. A phase of one name may come several times."""

    name: str
    begin: float
    end: float
    processes: dict[str, Use]


class Profile(FrozenModel):
    """The content of `profile.json`. Phases follow each other without a gap."""

    phases: tuple[PhaseUse, ...]
    samples: tuple[Sample, ...]

    @classmethod
    def of(cls, marks: Sequence[Mark], samples: Sequence[Sample]) -> "Profile":
        """Sum up samples by phase; those that there are when a phase begins and at the end of the last.

        >>> samples = [Sample(at=1, processor_s={"serve": 0.25}), Sample(at=2, processor_s={"serve": 1.5})]
        >>> Profile.of([Mark(phase="start", at=0)], samples).phases[0].processes
        {'serve': Use(processor_s=1.75, idle_s=0.75)}
        """
        last = samples[-1].at if samples else 0.0
        ends = [*(mark.at for mark in marks[1:]), last]
        phases = []
        for mark, end in zip(marks, ends, strict=False):
            processor, idle = defaultdict[str, float](float), defaultdict[str, float](float)
            for before, sample in zip((0.0, *(each.at for each in samples)), samples, strict=False):
                if not mark.at < sample.at <= end:
                    continue
                for name, seconds in sample.processor_s.items():
                    processor[name] += seconds
                    idle[name] += max(0.0, sample.at - before - seconds)
            uses = {name: Use(processor_s=round(processor[name], 2), idle_s=round(idle[name], 2)) for name in processor}
            phases.append(PhaseUse(name=mark.phase, begin=mark.at, end=end, processes=uses))
        return cls(phases=tuple(phases), samples=tuple(samples))

    @property
    def processes(self) -> list[str]:
        """Their names, in the order in which they began."""
        return list(dict.fromkeys(name for phase in self.phases for name in phase.processes))

    def table(self) -> Table:
        """For each name of a phase the seconds of all its times, and the processor seconds of the processes."""
        shown = Table("phase", "times", "seconds", "of the processor, by process")
        for name in dict.fromkeys(phase.name for phase in self.phases):
            shown.add_row(name, *_sums([phase for phase in self.phases if phase.name == name]))
        shown.add_section()
        shown.add_row("all", *_sums(self.phases))
        return shown


def _sums(phases: Sequence[PhaseUse]) -> tuple[str, str, str]:
    """The cells of phases together; the process that took the most comes first."""
    processor = defaultdict[str, float](float)
    for phase in phases:
        for name, use in phase.processes.items():
            processor[name] += use.processor_s
    told = [f"{name} {processor[name]:.1f}" for name in sorted(processor, key=lambda name: -processor[name])]
    return str(len(phases)), f"{sum(phase.end - phase.begin for phase in phases):.1f}", ", ".join(told)
