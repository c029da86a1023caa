"""The plots of a study, as SVG files beside its page."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from daemon.study.results import CellResult, Difference
from daemon.study.retention import CurvePoint
from ratchet_client.errors import ConfigurationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of each arm: where on the axis, its success, and the lowest and the highest of a seed.
_Lines: TypeAlias = Mapping[str, Sequence[tuple[float, float, tuple[float, float]]]]


def draw(
    compared: Sequence[Difference],
    curves: Mapping[tuple[str, str], Sequence[CurvePoint]],
    results: Sequence[CellResult],
    page: Path,
) -> list[Path]:
    """Draw of each domain success by demonstrations and by practice, where there are several points, and the losses.

    Raises `ConfigurationError` where the library for the plots is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigurationError(
            "a study's plots need matplotlib, which is not installed: pip install matplotlib, or leave out --report"
        ) from error
    written = []

    def save(name: str, fill: Callable[["Axes"], None]) -> None:
        figure = Figure(figsize=(6, 4))
        axes = figure.subplots()
        fill(axes)
        axes.legend(fontsize="small")
        path = page.with_name(f"{page.stem}-{name}.svg")
        figure.savefig(path, bbox_inches="tight")
        written.append(path)

    for domain in dict.fromkeys(each.domain for each in compared):
        by_demonstrations = _by_demonstrations(compared, domain)
        if any(len(points) > 1 for points in by_demonstrations.values()):
            save(f"{domain}-demonstrations", partial(_lines, by_demonstrations, "demonstrations", domain))
        by_practice: _Lines = {
            arm: [(point.practised, point.success, point.spread) for point in points]
            for (name, arm), points in curves.items()
            if name == domain
        }
        if by_practice:
            save(f"{domain}-practice", partial(_lines, by_practice, "episodes of practice", domain))
        save(f"{domain}-losses", partial(_losses, results, domain))
    return written


def _by_demonstrations(compared: Sequence[Difference], domain: str) -> _Lines:
    lines: dict[str, dict[int, Difference]] = defaultdict(dict)
    for each in compared:
        if each.domain == domain and each.budget == "updates" and not each.wrong:
            lines[each.arm].setdefault(each.demonstrations, each)
    return {
        arm: [(number, points[number].success, points[number].spread) for number in sorted(points)]
        for arm, points in lines.items()
    }


def _lines(lines: _Lines, label: str, domain: str, axes: "Axes") -> None:
    for arm, points in lines.items():
        axes.errorbar(
            [place for place, _, _ in points],
            [success for _, success, _ in points],
            [
                [success - low for _, success, (low, _) in points],
                [high - success for _, success, (_, high) in points],
            ],
            label=arm,
            capsize=3,
        )
    axes.set(xlabel=label, ylabel="success on held-out tasks", title=domain, ylim=(0, 1))


def _losses(results: Sequence[CellResult], domain: str, axes: "Axes") -> None:
    """Draw the losses of each arm's first cell, which is that of the first seed."""
    first = {
        result.cell.arm_name: result
        for result in reversed(results)
        if result.cell.data.name == domain and result.cell.budget == "updates"
    }
    for arm, result in sorted(first.items()):
        for objective, losses in result.losses.items():
            axes.plot(losses, label=f"{arm}: {objective}")
    axes.set(xlabel="update of the objective", ylabel="loss (nats per counted token)", title=domain)
