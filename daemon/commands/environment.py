"""`ratchet environment list | new | check | replay | demonstrate`: sandboxes, and whether they keep their promises."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from daemon.commands.conformance_report import ConformanceReport, print_report
from daemon.commands.demonstrating import demonstrate
from daemon.commands.options import ConfigOption, JsonOption, run_async
from daemon.commands.replay import replay_episodes
from daemon.config import Settings
from daemon.console import Narrator, print_json
from ratchet_client.errors import ConfigurationError
from ratchet_client.events import Task
from streams.environments.registry import registered_environments
from streams.environments.toolbox.definition import DEFINITION
from streams.environments.toolbox.scaffold import write_toolbox
from streams.environments.written_actions import WrittenTask, as_messages, read_tasks
from streams.errors import SandboxError
from streams.sandboxes.conformance import Suite
from streams.sandboxes.pool import SandboxPool, sandbox_pool
from streams.sandboxes.protocol import Description
from streams.sandboxes.settings import SandboxSettings

TOOLBOX = "toolbox"

environment = typer.Typer(name="environment", no_args_is_help=True, help="Where alternatives run.")


@environment.command("list")
def list_environments(as_json: JsonOption = False) -> None:
    """List the environments that are installed as sandboxes. Nothing else is ever branched in."""
    names = sorted(registered_environments())
    if as_json:
        print_json("[" + ", ".join(f'"{name}"' for name in names) + "]")
    else:
        typer.echo("\n".join(names))


environment.command("replay")(replay_episodes)
environment.command("demonstrate")(demonstrate)


@environment.command("new")
def new_environment(
    folder: Annotated[Path, typer.Argument(help="The folder to make; its name is the suite's.")],
    functions: Annotated[
        bool, typer.Option("--functions/--mcp", help="Tools as Python functions, or as an MCP server.")
    ] = False,
) -> None:
    """Write a toolbox, a domain of your own tools: a small one that is complete, to be changed into yours."""
    write_toolbox(folder, folder.absolute().name, "functions" if functions else "mcp")
    typer.echo(
        f"{folder} is a toolbox. Next: `ratchet environment check {folder}`; its README.md says how to make it yours."
    )


@environment.command("check")
def check_environment(
    name: Annotated[
        str, typer.Argument(help="The environment's entry point, as `list` has it, or a toolbox's folder.")
    ],
    game: Annotated[
        str, typer.Option("--suite", "--game", help="Which of its kinds of tasks; by default some of each.")
    ] = "",
    fold: Annotated[str, typer.Option(help="The fold whose tasks are played; by default domain.fold.")] = "",
    tasks: Annotated[int, typer.Option(min=1, help="How many of its tasks are played.")] = 16,
    task: Annotated[
        list[str] | None, typer.Option(help="The id of a task, for an environment without its own.")
    ] = None,
    actions: Annotated[
        Path | None,
        typer.Option(
            help='Tasks and the actions to play in them, as JSON lines: {"task_id": …, "seed": …, "actions": […]}.'
        ),
    ] = None,
    restores: Annotated[int, typer.Option(min=1, help="How many states each way of restoring brings back.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the tasks and of the steps aside.")] = 0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the conformance suite on an environment, in real sandbox processes. Exits with 1 if a promise is broken.

    For each promise that is broken it tells the actions that led there, what was expected, what came, and what to do.
    """
    if task and actions:
        raise typer.BadParameter("a file of actions names its tasks itself: give one of both", param_hint="--task")
    settings = Settings.load(config)
    name, sandboxes = _named(settings.branching, name)
    written = read_tasks(actions) if actions else tuple(WrittenTask(task_id=each, actions=()) for each in task or [])
    report = run_async(_check(sandboxes, name, game, fold or settings.domain.fold, tasks, written, restores, seed))
    if as_json:
        print_json(report.model_dump_json())
    else:
        print_report(report, Console())
    if report.broken:
        raise SandboxError(
            f"the environment {name!r} breaks {len(report.broken)} of {len(report.checks)} promises, first: "
            f"{report.broken[0].name}: {report.broken[0].seen.splitlines()[0]}"
        )


def _named(settings: SandboxSettings, name: str) -> tuple[str, SandboxSettings]:
    """The environment's name, and the settings with the folder of a toolbox that is named instead."""
    if not (Path(name) / DEFINITION).is_file():
        if name not in registered_environments() and Path(name).is_dir():
            raise typer.BadParameter(f"{name} is no toolbox: it has no {DEFINITION}", param_hint="NAME")
        if name not in registered_environments():
            known = ", ".join(sorted(registered_environments()))
            raise ConfigurationError(
                f"the environment {name!r} is not installed as a sandbox; known are: {known}. Install a package that "
                "registers it under the entry-point group ratchet.environments, or name the folder of a toolbox, which "
                "`ratchet environment new FOLDER` writes",
            )
        return name, settings
    own = {**settings.environments, TOOLBOX: {"folder": str(Path(name).absolute())}}
    return TOOLBOX, settings.model_copy(update={"environments": own})


async def _check(
    settings: SandboxSettings,
    name: str,
    game: str,
    fold: str,
    most: int,
    written: Sequence[WrittenTask],
    restores: int,
    seed: int,
) -> ConformanceReport:
    generator = random.Random(seed)
    with Narrator() as narrator:
        async with sandbox_pool(name, settings, size=2) as pool:
            description = await pool.describe()
            chosen = [Task(environment=name, task_id=task.task_id, seed=task.seed) for task in written]
            plans = {task.task_id: as_messages(task.actions, task.task_id) for task in written if task.actions}
            await _begin(pool, chosen)
            if not chosen:
                chosen = await _tasks(pool, description, game, fold, most, generator)
            suite = Suite(pool, description, chosen, restores, generator, plans=plans)
            checks = await suite.run(lambda check, done, total: narrator.advance("checks", done, total, check))
            narrator.advance("checks", len(checks), len(checks))
    return ConformanceReport(
        environment=name, description=description, tasks=len(chosen), checks=tuple(checks), played=suite.played
    )


async def _begin(pool: SandboxPool, named: Sequence[Task]) -> None:
    """Raise `ConfigurationError` for a task, of those that the user named, that the environment does not know."""
    for task in named:
        async with pool.session() as session:
            try:
                await session.reset(task)
            except SandboxError as error:
                raise ConfigurationError(
                    f"the task {task.task_id!r} cannot be begun: {error}; correct its id"
                ) from error


async def _tasks(
    pool: SandboxPool, description: Description, game: str, fold: str, most: int, generator: random.Random
) -> list[Task]:
    if not description.games:
        raise typer.BadParameter(
            "the environment brings no tasks of its own: name some with the actions to play, or their ids by --task",
            param_hint="--actions",
        )
    if game and game not in description.games:
        raise typer.BadParameter(f"it has {', '.join(description.games)}", param_hint="--suite")
    games = [game] if game else generator.sample(description.games, min(most, len(description.games)))
    chosen: list[Task] = []
    for number, each in enumerate(games):
        share = len(range(number, most, len(games)))
        listed = await pool.tasks(each, fold)
        chosen += generator.sample(listed, min(share, len(listed)))
    return chosen
