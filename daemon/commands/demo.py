"""`ratchet demo`: the whole loop on a real environment, with embedded defaults."""

from typing import Annotated

import typer
from rich.console import Console

from daemon.commands.logs import log_as
from daemon.commands.options import JsonOption, run_async
from daemon.console import Narrator, print_json
from daemon.demo.demo import run_demo
from daemon.demo.scenarios import SCENARIOS, ScenarioName
from ratchet_client.errors import RatchetError
from streams.runtime.logs import LogSettings


def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Do the same with less, proving less.")] = False,
    scenario: Annotated[
        ScenarioName, typer.Option(help="A support desk's agent that calls tools, or a text game's.")
    ] = ScenarioName.HELPDESK,
    seed: Annotated[int, typer.Option(help="Seed of the order of tasks, of branching and of training.")] = 0,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also write what each phase and process takes, as JSON and as a picture.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Teach a real language model on a real environment, end to end, on embedded defaults."""
    log_as(LogSettings(level="error"))  # the narrator tells the rest
    chosen = SCENARIOS[scenario]
    plan = chosen.plan(seed, quick=quick)
    with Narrator() as narrator:
        report = run_async(run_demo(plan, narrator, chosen, profile=profile))
    if as_json:
        print_json(report.model_dump_json(by_alias=True))
    else:
        Console().print(report.table())
    for gap in plan.unproven:
        typer.echo(f"left unproven by --quick: {gap}", err=True)
    if failures := report.failures(plan):
        raise RatchetError("the demo ran to its end but did not show everything: " + "; ".join(failures))
