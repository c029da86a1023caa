"""The command line: `ratchet demo | run | status | history | why | approve | reject | rollback | restore | …`.

Each command exits 0 on success, 2 on wrong usage, 1 otherwise with one line on stderr that says what to do.
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import structlog
import typer
from pydantic import ValidationError
from rich.console import Console

from daemon.commands.anchor import anchor
from daemon.commands.approval import approve, reject
from daemon.commands.dead_letters import dead_letters
from daemon.commands.doctor import doctor
from daemon.commands.environment import environment
from daemon.commands.episodes import episodes
from daemon.commands.export import export, transitions
from daemon.commands.forget import forget
from daemon.commands.gate import gate
from daemon.commands.gate_measures import aa, stats, tenant
from daemon.commands.importing import import_files
from daemon.commands.judge import judge
from daemon.commands.options import ConfigOption, JsonOption, assembly_status, operator_name, run_async
from daemon.commands.study import study
from daemon.commands.undoing import ON_HOLD, hold, restore, resume
from daemon.commands.verify import verify
from daemon.commands.why import why
from daemon.config import Settings
from daemon.console import Narrator, history_table, print_json, printable, status_table
from daemon.demo.demo import run_demo
from daemon.demo.scenarios import SCENARIOS, ScenarioName
from daemon.learning.domain import RECORDED, SET, UNSET, check_domain, is_judged
from daemon.registry.registry import Registry
from daemon.registry.schemas import RollbackRequest
from daemon.roles import RUN, Role
from daemon.serving.control_client import ControlClient
from daemon.supervisor import Supervisor
from learners.base_model import resolve_base
from streams.errors import RatchetError
from streams.runtime.processes import die_with_parent, stop_on_signals

Result = TypeVar("Result")

app = typer.Typer(
    name="ratchet",
    help="A continual-learning sidecar for production LLM agents.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Do the same with less, proving less.")] = False,
    scenario: Annotated[
        ScenarioName, typer.Option(help="A text game's agent, or a support desk's that calls tools.")
    ] = ScenarioName.TEXT_GAME,
    seed: Annotated[int, typer.Option(help="Seed of the order of tasks, of branching and of training.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Teach a real language model on a real environment, end to end, on embedded defaults."""
    _log_from(logging.ERROR)  # the narrator tells the rest
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


@app.command()
def run(
    roles: Annotated[
        str, typer.Option(help="Which of record, branch, learn, serve, assemble, otlp.")
    ] = "record,branch,learn,serve,assemble",
    config: ConfigOption = None,
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run Ratchet, or some of its roles: one in this process, several in a process each, restarted if they die."""
    try:
        chosen = [Role(name) for name in roles.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{error}; the roles are {', '.join(Role)}") from error
    settings = Settings.load(config)
    if len(chosen) == 1:
        if not settings.kafka.bootstrap:
            raise typer.BadParameter(
                "one role alone needs a cluster to share with the others: set RATCHET_KAFKA__BOOTSTRAP"
            )
        if parent is not None:
            die_with_parent(parent)
        run_async(RUN[chosen[0]](settings), fast=chosen[0] is Role.SERVE)
    else:
        run_async(_supervise(settings, chosen))


@app.command()
def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show what serves, which candidates wait for a person, what is stored, and how the last cycles ended."""
    report = run_async(_ask(config, lambda control: control.status()))
    report = report.model_copy(update={"assembly": run_async(assembly_status(Settings.load(config)))})
    if as_json:
        print_json(report.model_dump_json())
    else:
        Console().print(status_table(report))


@app.command()
def history(
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest entries.")] = 20,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """The audit log: who did what to which adapter, when and why. Read from its file, so nothing need be running."""
    entries = Registry(Settings.load(config).home).audit.read()[-limit:]
    if as_json:
        print_json("[" + ",".join(entry.model_dump_json(exclude_none=True) for entry in entries) + "]")
        return
    Console().print(history_table(entries))


@app.command()
def rollback(
    to: Annotated[str | None, typer.Option(help="Digest of an adapter that served, or `base`.")] = None,
    reason: Annotated[str, typer.Option(help="Why; it goes into the audit log.")] = "asked for by an operator",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let what served before serve again. What is taken back does not return by itself: see `ratchet restore`."""
    try:
        request = RollbackRequest(to=to, reason=reason, actor=operator_name())
    except ValidationError as error:
        raise typer.BadParameter(f"{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}") from error
    change = run_async(_ask(config, lambda control: control.rollback(request)))
    if as_json:
        print_json(change.model_dump_json())
    else:
        typer.echo(f"{change.to_name} serves instead of {change.from_name}, after {change.seconds:.2f} s")
    if change.on_hold:
        typer.echo(ON_HOLD, err=True)


app.command()(restore)
app.command()(hold)
app.command()(resume)
app.command()(verify)
app.command()(doctor)
app.command()(why)
app.command()(approve)
app.command()(reject)
app.command()(forget)
app.command()(transitions)
app.command()(export)
app.command("import")(import_files)
app.command()(judge)
app.command()(study)
app.add_typer(anchor)
for measure in (aa, stats, tenant):
    gate.command()(measure)
app.add_typer(gate)
app.add_typer(episodes)
app.add_typer(dead_letters)
app.add_typer(environment)


@app.command("check-config")
def check_config(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Read the configuration as `run` would, print what came of it, and look whether its gates can be played."""
    settings = Settings.load(config)
    if as_json:
        print_json(settings.model_dump_json())
    else:
        Console().print_json(settings.model_dump_json())
    run_async(check_domain(settings))


async def _supervise(settings: Settings, roles: Sequence[Role]) -> None:
    """Run the roles until a signal comes, which may also be while they start."""
    stop = asyncio.create_task(stop_on_signals().wait())
    running = asyncio.create_task(_run_supervised(settings, roles))
    await asyncio.wait((stop, running), return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def _run_supervised(settings: Settings, roles: Sequence[Role]) -> None:
    if Role.LEARN in roles and await check_domain(settings) is None:
        typer.echo(RECORDED if is_judged(settings.domain) else f"{UNSET}: {SET}", err=True)
    base = await asyncio.to_thread(resolve_base, settings.model, settings.home)
    async with Supervisor(settings, base, roles) as supervisor:
        names = ", ".join(role.value for role in roles)
        typer.echo(f"running {names}; agents ask {settings.control_url}/v1 for {settings.serving.alias!r}", err=True)
        typer.echo(f"the log is at {supervisor.settings.kafka.bootstrap}, logs are in {settings.home}/logs", err=True)
        await supervisor.wait()


async def _ask(config: Path | None, question: Callable[[ControlClient], Awaitable[Result]]) -> Result:
    async with ControlClient(Settings.load(config).control_url) as control:
        return await question(control)


def _log_from(level: int) -> None:
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )


def main() -> None:
    _log_from(logging.INFO)
    try:
        app()
    except RatchetError as error:
        typer.echo(f"ratchet: {printable(str(error))}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("ratchet: interrupted", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
