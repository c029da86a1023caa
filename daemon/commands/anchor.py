"""`ratchet anchor`: the older adapter that gates hold every candidate against."""

from typing import Annotated

import typer

from daemon.commands.options import ConfigOption, GroupOption, JsonOption, operator_name
from daemon.config import Settings
from daemon.console import print_json
from daemon.learning.why import find
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE
from learners.adapters import AdapterStore

anchor = typer.Typer(
    name="anchor", help="The older adapter that gates hold every candidate against.", no_args_is_help=True
)


@anchor.command("set")
def set_anchor(
    adapter: Annotated[str, typer.Argument(help="A digest, its beginning, a served name, `champion` or `base`.")],
    reason: Annotated[str, typer.Option(help="Why; it goes into the audit log.")],
    group: GroupOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold candidates against another adapter from the next gate on. It must serve, or have served."""
    home = Settings.load(config).of_group(group).home
    registry = Registry(home)
    wanted = registry.refs().champion if adapter == "champion" else adapter
    digest = BASE if wanted == BASE else find(wanted, registry, AdapterStore(home / "adapters"))
    if not reason.strip():
        raise typer.BadParameter("the audit log needs a reason", param_hint="--reason")
    refs = registry.set_anchor(digest, operator_name(), reason)
    if as_json:
        print_json(refs.model_dump_json())
    else:
        typer.echo(f"candidates are held against {refs.anchor[:12]} from the next gate on")
