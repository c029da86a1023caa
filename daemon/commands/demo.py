"""`ratchet demo`: the whole loop on a real environment, with embedded defaults."""

import logging
from typing import Annotated

import typer
from rich.console import Console

from daemon.commands.logs import log_from
from daemon.commands.options import JsonOption, run_async
from daemon.console import Narrator, print_json
from daemon.demo.demo import run_demo
from daemon.demo.scenarios import SCENARIOS, ScenarioName
from streams.errors import RatchetError


def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Do the same with less, proving less.")] = False,
    scenario: Annotated[
        ScenarioName, typer.Option(help="A text game's agent, or a support desk's that calls tools.")
    ] = ScenarioName.TEXT_GAME,
    seed: Annotated[int, typer.Option(help="Seed of the order of tasks, of branching and of training.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Teach a real language model on a real environment, end to end, on embedded defaults."""
    log_from(logging.ERROR)  # the narrator tells the rest
    chosen = SCENARIOS[scenario]
    plan = chosen.plan(seed, quick=quick)
    with Narrator() as narrator:
        report = run_async(run_demo(plan, narrator, chosen))
    if as_json:
        print_json(report.model_dump_json(by_alias=True))
    else:
        Console().print(report.table())
    for gap in plan.unproven:
        typer.echo(f"left unproven by --quick: {gap}", err=True)
    if failures := report.failures(plan):
        raise RatchetError("the demo ran to its end but did not show everything: " + "; ".join(failures))
