"""`ratchet drill rollback`: whether a rollback would work now, and how long it would take."""

from typing import Annotated

import typer

from daemon.commands.options import ConfigOption, GroupOption, JsonOption, control_of, operator_name, run_async
from daemon.config import Settings
from daemon.console import drill_told, print_json
from daemon.registry.schemas import Drill, DrillRequest
from streams.errors import PromotionError

drill = typer.Typer(
    name="drill",
    help="Try, without any effect on agents, whether what an emergency needs would work.",
    no_args_is_help=True,
)


@drill.callback()
def _drill() -> None:
    """A group, though it has one command yet."""


@drill.command("rollback")
def rollback(
    reason: Annotated[str, typer.Option(help="Why; it goes into the audit log.")] = "asked for by an operator",
    group: GroupOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Load what served before beside what serves, attest it, have it reply, and unload it again."""
    if not reason.strip():
        raise typer.BadParameter("the audit log needs a reason", param_hint="--reason")
    held = run_async(_hold(Settings.load(config), DrillRequest(reason=reason, actor=operator_name()), group))
    if as_json:
        print_json(held.model_dump_json())
    else:
        typer.echo(drill_told(held))
    if held.failed:
        raise PromotionError(f"a rollback to {held.adapter[:12]} would fail: {held.failed}")


async def _hold(settings: Settings, request: DrillRequest, group: str) -> Drill:
    async with control_of(settings, group) as control:
        return await control.drill_rollback(request)
