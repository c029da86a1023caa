"""`ratchet restore`, `ratchet hold` and `ratchet resume`: undo a rollback, and stop automatic promotion for a while."""

from collections.abc import Callable
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from daemon.commands.approval import AdapterArgument, ReasonOption, decision_request
from daemon.commands.gate import gate_summary
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
from daemon.printable import printable
from daemon.registry import holds
from daemon.registry.hints import command
from daemon.registry.registry import Registry
from daemon.registry.schemas import Change, DecisionRequest
from streams.errors import RegistryError

Result = TypeVar("Result")

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for a confirmation.")]


def restore(
    adapter: AdapterArgument,
    reason: ReasonOption,
    yes: YesOption = False,
    group: GroupOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Undo a rollback: let the adapter serve again that was taken back. It is loaded and attested; Ratchet must run."""
    settings = Settings.load(config).of_group(group)
    request = decision_request(settings, adapter, reason)
    registry = Registry(settings.home, group)
    champion = registry.refs().champion
    if champion != request.digest:
        registry.check_may_be_restored(request.digest)
        Console(stderr=as_json).print(gate_summary(registry, request.digest))
        if not yes:
            question = f"let {request.digest[:12]} serve again, instead of {champion[:12]}?"
            typer.confirm(question, abort=True, err=True)
    change = run_async(_restore(settings, request, group))
    if as_json:
        print_json(change.model_dump_json())
    elif change.from_adapter == change.to_adapter:
        typer.echo(f"{change.to_name} serves already")
    else:
        typer.echo(f"{change.to_name} serves instead of {replaced_by(change)}, after {change.seconds:.2f} s")
    if change.on_hold:
        typer.echo(on_hold(group), err=True)


def hold(
    reason: ReasonOption, group: GroupOption = "", config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Stop automatic promotion: what passes its gates waits for a person. What serves goes on. Works offline."""
    if not reason.strip():
        raise typer.BadParameter("say why", param_hint="--reason")
    registry = Registry(Settings.load(config).of_group(group).home)
    actor = operator_name()
    entry = _written(registry, lambda: holds.begin(registry.audit, registry.refs().champion, actor, reason.strip()))
    if as_json:
        print_json(entry.model_dump_json(exclude_none=True))
    else:
        typer.echo(printable(f"{holds.why_on_hold(entry)}; {command('resume', group)} ends it"))
    if entry.reason != reason.strip():
        typer.echo("promotion was on hold before: what was said now is not written down", err=True)


def resume(
    reason: Annotated[str, typer.Option(help="Why; it goes into the audit log.")] = "asked for by an operator",
    group: GroupOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let promotion be automatic again. What waits for a person meanwhile goes on waiting. Works offline."""
    registry = Registry(Settings.load(config).of_group(group).home)
    actor = operator_name()
    entry = _written(registry, lambda: holds.end(registry.audit, registry.refs().champion, actor, reason))
    if as_json:
        print_json("null" if entry is None else entry.model_dump_json(exclude_none=True))
    else:
        typer.echo("promotion was not on hold" if entry is None else "promotion is automatic again")


def _written(registry: Registry, change: Callable[[], Result]) -> Result:
    try:
        return change()
    except OSError as error:
        raise RegistryError(
            f"{registry.audit.path} cannot be written: {error}; run this as the user that Ratchet runs as"
        ) from error


async def _restore(settings: Settings, request: DecisionRequest, group: str) -> Change:
    async with control_of(settings, group) as control:
        return await control.restore(request)
