"""A study's results as a Markdown page with plots."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from daemon.study.plan import StudyPlan
from daemon.study.plots import draw
from daemon.study.results import CellResult, Difference, differences
from daemon.study.retention import CurvePoint, Retention, practice_curves, retention
from daemon.study.verdicts import Judged, judged_courses
from evaluation.settings import GateSettings
from streams.runtime.files import write_atomically


def write_report(plan: StudyPlan, results: Sequence[CellResult], page: Path) -> list[Path]:
    """Write the page, and beside it its plots as SVG; returns all files.

    Raises `ConfigurationError` where the library for the plots is not installed.
    """
    page.parent.mkdir(parents=True, exist_ok=True)
    compared, kept, curves = differences(results, plan.baseline), retention(results), practice_curves(results)
    plots = draw(compared, curves, results, page)
    parts = [markdown(plan, compared, len(results))]
    if kept:
        parts.append(_retention_table(kept))
    if curves:
        parts.append(_curve_table(curves))
    if courses := judged_courses(results, GateSettings()):
        parts.append(_gate_table(courses))
    parts += [_remarks(results), *(f"![{path.stem.replace('-', ' ')}]({path.name})\n" for path in plots)]
    write_atomically(page, "\n".join(part for part in parts if part).encode())
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
        told = "" if each.arm == plan.baseline else _difference(each)
        low, high = each.spread
        lines.append(
            f"| {each.domain} | {each.demonstrations} | {each.alternatives} | {each.wrong:.0%} | {each.arm} | "
            f"{each.budget} | {each.seeds} | {each.tasks} | {each.success:.3f} ({low:.3f} to {high:.3f}) | {told} |"
        )
    return "\n".join(lines) + "\n"


def _retention_table(kept: Sequence[Retention]) -> str:
    lines = [
        "Forgetting: success in the domain that was learned first, before and after the others were learned. The",
        "difference is paired by task; below 0 something was forgotten.",
        "",
        "| domain | then learned | demonstrations | arm | seeds | tasks | before | after | difference | in the other |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.domain} | {', '.join(each.others)} | {each.demonstrations} | {each.arm} | {each.seeds} | "
        f"{each.tasks} | {each.before:.3f} | {each.after:.3f} | {_difference(each)} | {each.learned:.3f} |"
        for each in kept
    ]
    return "\n".join(lines) + "\n"


def _curve_table(curves: Mapping[tuple[str, str], Sequence[CurvePoint]]) -> str:
    lines = [
        "Practice: success by the episodes that were played for practice until then, the mean over seeds.",
        "",
        "| domain | arm | episodes: success |",
        "|---|---|---|",
    ]
    for (domain, arm), points in curves.items():
        told = ", ".join(f"{point.practised:.0f}: {point.success:.3f}" for point in points)
        lines.append(f"| {domain} | {arm} | {told} |")
    return "\n".join(lines) + "\n"


def _gate_table(courses: Sequence[tuple[CellResult, Sequence[Judged]]]) -> str:
    lines = [
        "Gates: what the gate `improvement` would have said of each adapter against the last one promoted, by these",
        "tasks, with how many only the one and only the other solved. The first adapter is not judged. Success out of",
        "domain is in brackets.",
        "",
        "| domain | arm | seed | after each training |",
        "|---|---|---|---|",
    ]
    for result, course in courses:
        data = result.cell.data
        told = "; ".join(map(_judged, course))
        lines.append(f"| {data.name} | {result.cell.arm_name} | {data.seed} | {told} |")
    return "\n".join(lines) + "\n"


def _judged(each: Judged) -> str:
    outside = "" if each.out_of_domain is None else f" ({each.out_of_domain:.3f})"
    gate = "" if each.verdict is None else f" {each.verdict.value} {each.wins}:{each.losses} of {each.tasks}"
    return f"{each.success:.3f}{outside}{gate}"


def _remarks(results: Sequence[CellResult]) -> str:
    """The versions that the cells ran on, and the objectives that found nothing to learn from."""
    versions = sorted({result.code for result in results if result.code})
    lines = [f"Run on {', '.join(versions)}."] if versions else []
    skipped = sorted({(result.cell.arm_name, name) for result in results for name in result.skipped})
    for arm, name in skipped:
        cells = [result for result in results if result.cell.arm_name == arm]
        count = sum(name in result.skipped for result in cells)
        lines.append(f"In {count} of {len(cells)} cells of `{arm}`, {name} found nothing to learn from at times.")
    return "\n".join(lines) + "\n" if lines else ""


def _difference(each: Difference | Retention) -> str:
    interval = "" if each.low is None else f" ({each.low:+.3f} to {each.high:+.3f})"
    return f"{each.difference:+.3f}{interval}"
