"""`ratchet rollback`: what served before serves again."""

from typing import Annotated

import typer
from pydantic import ValidationError

from daemon.commands.options import (
    ConfigOption,
    GroupOption,
    JsonOption,
    control_of,
    on_hold,
    operator_name,
    replaced_by,
    run_async,
)
from daemon.config import Settings
from daemon.console import print_json
from daemon.registry.hints import command
from daemon.registry.schemas import Change, RollbackRequest


def rollback(
    to: Annotated[str | None, typer.Option(help="Digest of an adapter that served, all 64 digits, or `base`.")] = None,
    reason: Annotated[str, typer.Option(help="Why; it goes into the audit log.")] = "asked for by an operator",
    group: GroupOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let what served before serve again. What is taken back does not return by itself: see `ratchet restore`."""
    try:
        request = RollbackRequest(to=to, reason=reason, actor=operator_name())
    except ValidationError as error:
        if error.errors()[0]["loc"] == ("to",):
            said = (
                f"{to!r} is no digest of 64 digits, nor `base`: {command('history', group, '--json')} has the digests"
            )
            raise typer.BadParameter(said, param_hint="--to") from error
        raise typer.BadParameter(f"{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}") from error
    change = run_async(_roll_back(Settings.load(config), request, group))
    if as_json:
        print_json(change.model_dump_json())
    else:
        typer.echo(f"{change.to_name} serves instead of {replaced_by(change)}, after {change.seconds:.2f} s")
    if change.on_hold:
        typer.echo(on_hold(group), err=True)


async def _roll_back(settings: Settings, request: RollbackRequest, group: str) -> Change:
    async with control_of(settings, group) as control:
        return await control.rollback(request)
