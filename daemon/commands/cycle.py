"""`ratchet cycle`: one cycle of the learn role, for a scheduler or by hand."""

import typer

from daemon.commands.logs import log_as
from daemon.commands.options import ConfigOption, JsonOption, run_async
from daemon.commands.permissions import check_permissions
from daemon.config import Settings
from daemon.console import print_json
from daemon.learning.one_cycle import OneCycle, run_one
from daemon.printable import printable
from daemon.roles import Role
from daemon.upgrades.upgrading import refuse_begun
from ratchet_client.errors import RatchetError
from ratchet_client.settings import FrozenModel
from streams.errors import CycleInterruptedError, LearnerRunsError
from streams.runtime.logs import tell_end
from streams.runtime.private_home import secure
from streams.runtime.processes import stop_on_signals
from streams.runtime.tracing import traced

LEARNER_RUNS = 3
INTERRUPTED = 130


class _Ended(FrozenModel):
    groups: tuple[OneCycle, ...]


def cycle(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Run one cycle of the learn role, or finish the one that was broken off, and end. Nothing where none is due.

    Record, serve and the inference server must run, and the role learn not. Exits 0 when a cycle has ended, whatever
    its verdict, or when none was due; 1 when a step failed, and what serves is as it was; 3 when another learner works
    in the home; 130 when a signal came before the end. Called again, it goes on where it was broken off.
    """
    settings = Settings.load(config)
    log_as(settings.log)
    secure(settings.home)
    refuse_begun(settings.home)
    check_permissions(settings)
    try:
        with traced(Role.LEARN):
            ended = run_async(_run(settings))
    except LearnerRunsError as error:
        raise _exit(error, LEARNER_RUNS) from error
    except CycleInterruptedError as error:
        raise _exit(error, INTERRUPTED) from error
    if as_json:
        print_json(_Ended(groups=ended).model_dump_json())
        return
    for each in ended:
        typer.echo(printable(_told(each)))


async def _run(settings: Settings) -> tuple[OneCycle, ...]:
    return await run_one(settings, stop_on_signals())


def _exit(error: RatchetError, status: int) -> typer.Exit:
    tell_end(str(error), f"ratchet: {printable(str(error))}")
    return typer.Exit(status)


def _told(ended: OneCycle) -> str:
    of_group = f" of the group {ended.group}" if ended.group else ""
    if ended.cycle is None:
        return f"no cycle{of_group} is due: {ended.reason}"
    return f"a cycle{of_group} ended: {ended.cycle.verdict.value} {ended.cycle.adapter[:12]}, {ended.cycle.reason}"
