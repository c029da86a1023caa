"""`ratchet approve` and `ratchet reject`: a person decides about a candidate that waits for one."""

from typing import Annotated

import typer
from pydantic import ValidationError

from daemon.commands.options import (
    ConfigOption,
    GroupOption,
    JsonOption,
    control_of,
    operator_name,
    replaced_by,
    run_async,
)
from daemon.config import Settings
from daemon.console import print_json
from daemon.learning.why import find
from daemon.registry.registry import Registry
from daemon.registry.schemas import Change, DecisionRequest
from learners.adapters import AdapterStore
from streams.errors import RegistryError

AdapterArgument = Annotated[
    str, typer.Argument(help="A digest, its beginning, or a served name; `ratchet status` has them.")
]
ReasonOption = Annotated[str, typer.Option(help="Why; it goes into the audit log.")]


def approve(
    adapter: AdapterArgument,
    reason: ReasonOption,
    group: GroupOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a candidate serve that waits for a person. It is loaded and attested like any other; Ratchet must run."""
    settings = Settings.load(config).of_group(group)
    request = decision_request(settings, adapter, reason)
    change = run_async(_approve(settings, request, group))
    if as_json:
        print_json(change.model_dump_json())
    elif change.share < 1:
        typer.echo(
            f"{change.to_name} answers {change.share:.0%} of new episodes, in a canary beside {replaced_by(change)}"
        )
    else:
        typer.echo(f"{change.to_name} serves instead of {replaced_by(change)}, after {change.seconds:.2f} s")


def reject(
    adapter: AdapterArgument,
    reason: ReasonOption,
    group: GroupOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a candidate that waits for a person. Works offline."""
    settings = Settings.load(config).of_group(group)
    request = decision_request(settings, adapter, reason)
    registry = Registry(settings.home, group)
    try:
        entry = registry.reject(request.digest, request.actor, request.reason)
    except OSError as error:
        raise RegistryError(
            f"{registry.audit.path} cannot be written: {error}; run this as the user that Ratchet runs as"
        ) from error
    if as_json:
        print_json(entry.model_dump_json(exclude_none=True))
    else:
        typer.echo(f"{request.digest[:12]} is rejected and will not serve")


def decision_request(settings: Settings, adapter: str, reason: str) -> DecisionRequest:
    """What this user says about the adapter that `adapter` names. Raises `UnknownAdapterError`, and `BadParameter`."""
    if not reason.strip():
        raise typer.BadParameter("say why", param_hint="--reason")
    digest = find(adapter, Registry(settings.home), AdapterStore(settings.home / "adapters"))
    try:
        return DecisionRequest(digest=digest, reason=reason, actor=operator_name())
    except ValidationError as error:
        raise typer.BadParameter(f"{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}") from error


async def _approve(settings: Settings, request: DecisionRequest, group: str) -> Change:
    async with control_of(settings, group) as control:
        return await control.approve(request)
