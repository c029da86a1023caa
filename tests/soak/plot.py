"""The memory and the handles of every process over the time of a soak, with its faults, as an SVG."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.soak.growth import Point
from tests.soak.processes import Series
from tests.soak.report import FaultRecord

Lives = Mapping[str, Sequence[Series]]


def draw(path: Path, lives: Lives, faults: Sequence[FaultRecord], began: float) -> None:
    """Write the plot; each process has a colour, each of its lives a line, and each fault a bar.

    Faults are told from `began` on, in the monotonic seconds of the samples; minutes on the axis are from there, too.
    """
    figure = Figure(figsize=(12, 8), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    parts: tuple[tuple[Axes, str, Callable[[Series], Sequence[Point]]], ...] = (
        (above, "resident, MiB", lambda series: series.rss),
        (below, "open handles", lambda series: series.handles),
    )
    for axes, label, points_of in parts:
        for number, (name, each) in enumerate(sorted(lives.items())):
            for first, series in enumerate(each):
                points = points_of(series)
                axes.plot(
                    [(at - began) / 60 for at, _ in points],
                    [value for _, value in points],
                    color=f"C{number}",
                    linewidth=1,
                    label=name if first == 0 else None,
                )
        for fault in faults:
            begin = fault.at_s / 60
            axes.axvspan(begin, begin + max(fault.lasts_s, 1.0) / 60, color="0.85", linewidth=0, zorder=0)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
    above.legend(loc="upper left", ncols=5, fontsize="small")
    below.set_xlabel("minutes; grey where a fault was")
    figure.savefig(path)
