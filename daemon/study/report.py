"""A study's results as a Markdown page with plots."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from daemon.study.plan import StudyPlan
from daemon.study.results import CellResult, Difference, differences
from streams.errors import ConfigurationError
from streams.runtime.files import write_atomically


def write_report(plan: StudyPlan, results: Sequence[CellResult], page: Path) -> list[Path]:
    """Write the page, and beside it its plots as SVG; returns all files.

    Raises `ConfigurationError` where the library for the plots is not installed.
    """
    page.parent.mkdir(parents=True, exist_ok=True)
    compared = differences(results, plan.baseline)
    plots = _plots(compared, results, page)
    pictures = "\n\n".join(f"![{path.stem.replace('-', ' ')}]({path.name})" for path in plots)
    table = markdown(plan, compared, len(results))
    write_atomically(page, (f"{table}\n{pictures}\n" if plots else table).encode())
    return [page, *plots]


def markdown(plan: StudyPlan, compared: Sequence[Difference], done: int) -> str:
    """The table: a row for each arm under each condition."""
    cells = sum(1 for _ in plan.cells())
    lines = [
        f"{done} of {cells} cells. Success is the mean over seeds on held-out tasks, with the lowest and the highest",
        f"seed; the difference to `{plan.baseline}` is paired by task, with Student's 95% interval over tasks.",
        "",
        "| domain | demonstrations | alternatives | wrong | arm | equal | seeds | tasks | success | difference |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for each in compared:
        interval = "" if each.low is None else f" ({each.low:+.3f} to {each.high:+.3f})"
        told = "" if each.arm == plan.baseline else f"{each.difference:+.3f}{interval}"
        low, high = each.spread
        lines.append(
            f"| {each.domain} | {each.demonstrations} | {each.alternatives} | {each.wrong:.0%} | {each.arm} | "
            f"{each.budget} | {each.seeds} | {each.tasks} | {each.success:.3f} ({low:.3f} to {high:.3f}) | {told} |"
        )
    return "\n".join(lines) + "\n"


def _plots(compared: Sequence[Difference], results: Sequence[CellResult], page: Path) -> list[Path]:
    """Success by demonstrations, where there are several numbers of them, and the losses of the first seed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigurationError(
            "a study's plots need matplotlib, which is not installed: pip install matplotlib, or leave out --report"
        ) from error
    written = []

    def save(figure: Figure, name: str) -> None:
        path = page.with_name(f"{page.stem}-{name}.svg")
        figure.savefig(path, bbox_inches="tight")
        written.append(path)

    for domain in dict.fromkeys(each.domain for each in compared):
        lines: dict[str, dict[int, Difference]] = defaultdict(dict)
        for each in compared:
            if each.domain == domain and each.budget == "updates" and not each.wrong:
                lines[each.arm].setdefault(each.demonstrations, each)
        if any(len(points) > 1 for points in lines.values()):
            figure = Figure(figsize=(6, 4))
            axes = figure.subplots()
            for arm, points in lines.items():
                shown = [points[number] for number in sorted(points)]
                axes.errorbar(
                    [each.demonstrations for each in shown],
                    [each.success for each in shown],
                    [
                        [each.success - each.spread[0] for each in shown],
                        [each.spread[1] - each.success for each in shown],
                    ],
                    label=arm,
                    capsize=3,
                )
            axes.set(xlabel="demonstrations", ylabel="success on held-out tasks", title=domain, ylim=(0, 1))
            axes.legend()
            save(figure, f"{domain}-demonstrations")
        first = {
            result.cell.arm_name: result
            for result in reversed(results)
            if result.cell.data.name == domain and result.cell.budget == "updates"
        }
        figure = Figure(figsize=(6, 4))
        axes = figure.subplots()
        for arm, result in sorted(first.items()):
            for objective, losses in result.losses.items():
                axes.plot(losses, label=f"{arm}: {objective}")
        axes.set(xlabel="update of the objective", ylabel="loss (nats per counted token)", title=domain)
        axes.legend(fontsize="small")
        save(figure, f"{domain}-losses")
    return written
