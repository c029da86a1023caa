"""`ratchet run`: the roles, one in this process or several under a supervisor."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Annotated

import typer
import uvloop

from daemon.commands.logs import log_as
from daemon.commands.options import ConfigOption, run_async
from daemon.commands.permissions import check_permissions
from daemon.config import Settings
from daemon.console import Narrator
from daemon.learning.domain import RECORDED, SET, UNSET, check_domain, is_judged
from daemon.roles import RUN, Role, access_of
from daemon.supervisor import Supervisor, starts_engine
from daemon.upgrades.upgrading import refuse_begun
from learners.base_model import is_to_be_converted, resolve_base
from streams.runtime.private_home import secure
from streams.runtime.processes import die_with_parent, stop_on_signals
from streams.runtime.tracing import traced


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
    log_as(settings.log)
    secure(settings.home)
    refuse_begun(settings.home)
    if {Role.BRANCH, Role.LEARN}.intersection(chosen):
        check_permissions(settings)
    if len(chosen) == 1:
        if not settings.kafka.bootstrap:
            raise typer.BadParameter(
                "one role alone needs a cluster to share with the others: set RATCHET_KAFKA__BOOTSTRAP"
            )
        if parent is not None:
            die_with_parent(parent)
        with traced(chosen[0]):
            run_async(RUN[chosen[0]](settings), uvloop.new_event_loop if chosen[0] is Role.SERVE else None)
    else:
        run_async(_supervise(settings, chosen))


async def _supervise(settings: Settings, roles: Sequence[Role]) -> None:
    """Run the roles until a signal comes, which may also be while they start."""
    stop = asyncio.create_task(stop_on_signals().wait())
    running = asyncio.create_task(_run_supervised(settings, roles))
    await asyncio.wait((stop, running), return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        typer.echo("stopping: each role ends what it has begun, and the broker comes last", err=True)
        running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def _run_supervised(settings: Settings, roles: Sequence[Role]) -> None:
    say, names = Narrator().say, ", ".join(role.value for role in roles)
    say(f"starting {names} in {settings.home}; logs are in {settings.home}/logs")
    # Before anything starts: the roles themselves would say it in their logs.
    faces = [access for access in (access_of(settings, role) for role in roles) if access is not None]
    have_tokens = [access.check() for access in faces]
    if not all(have_tokens):
        typer.echo("no token is asked for, as there is none: make one with `ratchet token new NAME`", err=True)
    if Role.LEARN in roles and await check_domain(settings) is None:
        typer.echo(RECORDED if is_judged(settings.domain) else f"{UNSET}: {SET}", err=True)
    # An installation without the learner has no model to convert, and nothing to convert it with.
    wanted = Role.LEARN in roles or starts_engine(settings, roles)
    if wanted and is_to_be_converted(settings.model, settings.home):
        say(f"converting the base model {settings.model}, once; it takes half a minute")
    base = await asyncio.to_thread(resolve_base, settings.model, settings.home) if wanted else None
    async with Supervisor(settings, base, roles, say) as supervisor:
        typer.echo(f"running {names}; agents ask {settings.control_url}/v1 for {settings.serving.alias!r}", err=True)
        if Role.SERVE in roles:
            typer.echo(f"the console is at {settings.control_url}/", err=True)
        typer.echo(f"the log is at {supervisor.settings.kafka.bootstrap}, logs are in {settings.home}/logs", err=True)
        await supervisor.wait()
