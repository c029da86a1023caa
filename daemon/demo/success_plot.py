"""The picture of a demo's result: the success of both sides of each cycle's gate, and on unseen tasks in the end."""

from pathlib import Path

from daemon.demo.plan import DemoReport

PICTURE = "success.svg"
_WIDTH = 0.38


def draw(report: DemoReport, path: Path) -> None:
    """Write the picture, whose format is that of the name's ending. Raises `ImportError` without matplotlib."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.add_subplot()
    names = [f"cycle {number}\n{cycle.verdict.value}" for number, cycle in enumerate(report.cycles, 1)]
    serving = [cycle.champion_success or 0.0 for cycle in report.cycles]
    candidates = [cycle.candidate_success or 0.0 for cycle in report.cycles]
    if report.unseen is not None:
        names.append(f"{report.unseen.tasks} unseen tasks:\nfirst, last to serve")
        serving.append(report.unseen.first_success)
        candidates.append(report.unseen.last_success)
    for bars, offset, label in ((serving, -_WIDTH / 2, "serves"), (candidates, _WIDTH / 2, "candidate")):
        drawn = axes.bar([place + offset for place in range(len(bars))], bars, _WIDTH, label=label)
        axes.bar_label(drawn, fmt="{:.2f}")
    axes.set_xticks(range(len(names)), names)
    axes.set(ylim=(0, 1), ylabel="success")
    axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
    with rc_context({"svg.fonttype": "none"}):  # words that can be read and searched
        figure.savefig(path)
