"""`ratchet environment list | check`: what is installed as a sandbox, and whether it keeps its promises."""

import random
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from daemon.commands.options import ConfigOption, JsonOption, run_async
from daemon.config import Settings
from daemon.console import Narrator, print_json
from streams.environments.registry import registered_environments
from streams.errors import SandboxError
from streams.events import Task
from streams.sandboxes.conformance import Check, Suite
from streams.sandboxes.pool import SandboxPool, sandbox_pool
from streams.sandboxes.protocol import Description
from streams.settings import FrozenModel

environment = typer.Typer(name="environment", no_args_is_help=True, help="Where alternatives run.")


class ConformanceReport(FrozenModel):
    """The JSON of `ratchet environment check --json`."""

    environment: str
    description: Description
    tasks: int
    checks: tuple[Check, ...]

    @property
    def broken(self) -> list[Check]:
        return [check for check in self.checks if not check.kept]


@environment.command("list")
def list_environments(as_json: JsonOption = False) -> None:
    """List the environments that are installed as sandboxes. Nothing else is ever branched in."""
    names = sorted(registered_environments())
    if as_json:
        print_json("[" + ", ".join(f'"{name}"' for name in names) + "]")
    else:
        typer.echo("\n".join(names))


@environment.command("check")
def check_environment(
    name: Annotated[str, typer.Argument(help="The environment's entry point, as `list` has it.")],
    game: Annotated[str, typer.Option(help="Which of its kinds of tasks; by default some of each.")] = "",
    tasks: Annotated[int, typer.Option(min=1, help="How many of its tasks are played.")] = 16,
    task: Annotated[
        list[str] | None, typer.Option(help="The id of a task, for an environment without its own.")
    ] = None,
    restores: Annotated[int, typer.Option(min=1, help="How many states each way of restoring brings back.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the tasks and of the steps aside.")] = 0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the conformance suite on an environment, in real sandbox processes. Exits with 1 if a promise is broken."""
    settings = Settings.load(config)
    report = run_async(_check(settings, name, game, tasks, task or [], restores, seed))
    if as_json:
        print_json(report.model_dump_json())
    else:
        Console().print(_table(report))
    if report.broken:
        raise SandboxError(
            f"the environment {name!r} breaks {len(report.broken)} of {len(report.checks)} promises, first: "
            f"{report.broken[0].name}: {report.broken[0].seen}"
        )


async def _check(
    settings: Settings, name: str, game: str, most: int, ids: list[str], restores: int, seed: int
) -> ConformanceReport:
    generator = random.Random(seed)
    with Narrator() as narrator:
        async with sandbox_pool(name, settings.branching, size=2) as pool:
            description = await pool.describe()
            chosen = [Task(environment=name, task_id=task_id) for task_id in ids]
            if not chosen:
                chosen = await _tasks(pool, description, game, most, generator)
            suite = Suite(pool, description, chosen, restores, generator)
            checks = await suite.run(lambda check, done, total: narrator.advance("checks", done, total, check))
            narrator.advance("checks", len(checks), len(checks))
    return ConformanceReport(environment=name, description=description, tasks=len(chosen), checks=tuple(checks))


async def _tasks(
    pool: SandboxPool, description: Description, game: str, most: int, generator: random.Random
) -> list[Task]:
    if not description.games:
        raise typer.BadParameter("the environment brings no tasks of its own: name some", param_hint="--task")
    if game and game not in description.games:
        raise typer.BadParameter(f"it has {', '.join(description.games)}", param_hint="--game")
    games = [game] if game else generator.sample(description.games, min(most, len(description.games)))
    chosen: list[Task] = []
    for number, each in enumerate(games):
        share = len(range(number, most, len(games)))
        listed = await pool.tasks(each, "train")
        chosen += generator.sample(listed, min(share, len(listed)))
    return chosen


def _table(report: ConformanceReport) -> Table:
    table = Table("promise", "kept", "seen", title=f"{report.environment}: {report.tasks} tasks")
    for check in report.checks:
        table.add_row(check.name, "yes" if check.kept else "[red]no[/red]", check.seen)
    return table
