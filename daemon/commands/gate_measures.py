"""`ratchet gate stats | aa | tenant`: what gates are planned by, as it was measured, and the names of slices."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from daemon.commands.options import ConfigOption, GroupOption, JsonOption, control_of, run_async
from daemon.config import Settings
from daemon.console import Narrator, print_json
from daemon.learning.domain import SET, UNSET, domain_tasks
from daemon.learning.measured import AARun, Measured, agreement_of_plays, keep_aa_run, measured
from daemon.learning.task_lists import tenant_label
from daemon.serving.engine_client import engine_client
from evaluation.arena import Arena
from ratchet_client.errors import ConfigurationError
from streams.errors import GateError
from streams.sandboxes.pool import sandbox_pool


def stats(group: GroupOption = "", config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show how far two adapters agree, and how often one differs from itself, beside what is assumed. Works offline."""
    found = measured(Settings.load(config).of_group(group).home)
    if as_json:
        print_json(found.model_dump_json())
    else:
        Console().print(_table(found))


def aa(
    plays: Annotated[int, typer.Option(min=2, help="How often each task is played.")] = 2,
    tasks: Annotated[int, typer.Option(min=1, help="How many selection tasks are played.")] = 100,
    group: GroupOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Play held-out tasks several times with what serves now: how often does it differ from itself?

    Nothing is selected by it, so that the tasks are not used up.
    """
    run = run_async(_play_against_itself(Settings.load(config), plays, tasks, group))
    if as_json:
        print_json(run.model_dump_json())
        return
    agreement = run.agreement
    typer.echo(
        f"{run.adapter[:12]} differs from itself on {agreement.discordant} of {agreement.tasks} pairs of plays "
        f"({agreement.discordance or 0:.1%})"
    )


def tenant(principal: str, config: ConfigOption = None) -> None:
    """Print the name that a principal's slice has in reports, which do not say who it is."""
    typer.echo(f"tenant {tenant_label(principal, Settings.load(config).holdout)}")


async def _play_against_itself(settings: Settings, plays: int, most: int, group: str) -> AARun:
    home, domain = settings.of_group(group).home, settings.domain
    if not domain.environment:
        raise ConfigurationError(f"{UNSET}: {SET}")
    async with (
        control_of(settings, group) as control,
        engine_client(settings.serving) as policy,
        sandbox_pool(domain.environment, settings.branching, size=1) as pool,
    ):
        status = await control.status()
        if status.is_cold:
            await control.load()
            status = await control.status()
        if status.served is None:
            raise GateError("nothing serves yet, so there is nothing to play against itself: see the serve role's log")
        chosen = (await domain_tasks(domain, pool)).held_out(settings.holdout)[:most]
        if not chosen:
            raise GateError("no task is held out: raise holdout.selection, or give the suite more tasks")
        arena = Arena(policy, pool, (await pool.describe()).harness, settings.gate.rollouts)
        rollouts = []
        with Narrator() as narrator:
            for number in range(plays):

                def report(done: int, total: int, before: int = number * len(chosen)) -> None:
                    narrator.advance("A/A", before + done, plays * total)

                rollouts.append(await arena.play(chosen, status.served, report))
    agreement = agreement_of_plays(rollouts)
    run = AARun(adapter=status.champion, at=datetime.now(UTC), tasks=len(chosen), plays=plays, agreement=agreement)
    keep_aa_run(home, run)
    return run


def _table(found: Measured) -> Table:
    table = Table("", "measured", "assumed", "of")
    phi = "nothing yet" if found.phi is None else f"{found.phi:.2f}"
    table.add_row("phi", phi, f"{found.assumed_phi:.2f}", f"{found.pairs.tasks} pairs of {found.gates} gates")
    discordance = "nothing yet" if found.discordance is None else f"{found.discordance:.1%}"
    table.add_row("solved by one side alone", discordance, "", f"{found.pairs.tasks} pairs")
    flips = "nothing yet"
    if found.flip_rate is not None and found.flip_rate_interval is not None:
        low, high = found.flip_rate_interval
        flips = f"{found.flip_rate:.1%} ({low:.1%} to {high:.1%})"
    table.add_row("one adapter with itself", flips, f"{found.assumed_flip_rate:.0%}", f"{found.flips.tasks} replays")
    return table
