"""The picture of a demo's profile: its phases, and below them the processors that each process keeps busy."""

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib import colormaps
from matplotlib.figure import Figure

from daemon.demo.profile import Profile

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(profile: Profile, path: Path) -> None:
    """Write the picture, whose format is that of the name's ending."""
    figure = Figure(figsize=(14, 9), layout="constrained")
    phases, processors = figure.subplots(2, sharex=True)
    _phases(profile, phases)
    _processors(profile, processors)
    figure.savefig(path)


def _phases(profile: Profile, axes: "Axes") -> None:
    """Draw a bar for each phase; those of one name in one line."""
    times = defaultdict[str, list[tuple[float, float]]](list)
    for phase in profile.phases:
        times[phase.name].append((phase.begin, phase.end - phase.begin))
    for line, (name, bars) in enumerate(times.items()):
        axes.broken_barh(bars, (line - 0.4, 0.8), label=name)
    axes.set_yticks(range(len(times)), list(times))
    axes.invert_yaxis()
    axes.grid(axis="x")


def _processors(profile: Profile, axes: "Axes") -> None:
    """Stack for each process the processor seconds a second between two samples."""
    ends = [sample.at for sample in profile.samples]
    lengths = [max(end - begin, 1e-3) for begin, end in zip([0.0, *ends], ends, strict=False)]
    rates = {
        name: [sample.processor_s.get(name, 0.0) / s for sample, s in zip(profile.samples, lengths, strict=True)]
        for name in profile.processes
    }
    colours = [colormaps["tab20"](number) for number in range(len(rates))]
    axes.stackplot(ends, *rates.values(), labels=list(rates), colors=colours, step="pre")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")
    axes.set(xlabel="seconds", ylabel="processors busy")
    axes.grid(axis="x")
