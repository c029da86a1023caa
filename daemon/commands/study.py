"""`ratchet study`: compares arms of training on the same demonstrations and held-out tasks."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from daemon.commands.options import ConfigOption, JsonOption, run_async
from daemon.config import Settings
from daemon.console import Narrator, print_json
from daemon.study.plan import StudyPlan
from daemon.study.report import write_report
from daemon.study.results import Difference, Results, differences
from daemon.study.running import Study
from ratchet_client.settings import FrozenModel


class StudyReport(FrozenModel):
    """The JSON of `ratchet study --json`: how many cells the plan has, how many are done, and the comparison."""

    cells: int
    done: int
    differences: tuple[Difference, ...]


def study(
    plan: Annotated[Path, typer.Argument(help="The plan, a TOML file: domains, arms, seeds.", dir_okay=False)],
    folder: Annotated[Path, typer.Option(help="Where data, adapters and rollouts are kept.", file_okay=False)] = Path(
        "study"
    ),
    results: Annotated[
        Path | None, typer.Option(help="Where the small results are kept; FOLDER/cells by default.", file_okay=False)
    ] = None,
    cells: Annotated[int | None, typer.Option(min=0, help="Stop after so many cells; 0 only reports.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with plots, such as docs/study.md.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train every arm of a plan for every domain and seed, play held-out tasks, and compare with the baseline.

    Each cell is kept as soon as it is done, under the content of all that it depends on: begun again, a study goes on
    with those that are missing.
    """
    chosen = StudyPlan.read(plan)
    with Narrator() as narrator:
        kept = Results(results or folder / "cells")
        found = run_async(Study(chosen, folder, kept, Settings.read(config), narrator).run(cells))
    compared = differences(found, chosen.baseline)
    if report is not None:
        for path in write_report(chosen, found, report):
            narrator.say(f"written: {path}")
    if as_json:
        told = StudyReport(cells=sum(1 for _ in chosen.cells()), done=len(found), differences=tuple(compared))
        print_json(told.model_dump_json())
        return
    table = Table("domain", "arm", "equal", "demos", "seeds", "tasks", "success", "difference", "95% interval")
    for each in compared:
        interval = "" if each.low is None else f"{each.low:+.3f} to {each.high:+.3f}"
        table.add_row(
            *(each.domain, each.arm, each.budget, str(each.demonstrations), str(each.seeds), str(each.tasks)),
            *(f"{each.success:.3f}", f"{each.difference:+.3f}", interval),
        )
    Console().print(table)
