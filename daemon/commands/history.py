"""`ratchet history`: the audit log."""

from typing import Annotated

import typer
from rich.console import Console

from daemon.commands.options import ConfigOption, GroupOption, JsonOption
from daemon.config import Settings
from daemon.console import history_table, print_json
from daemon.registry.registry import Registry


def history(
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest entries.")] = 20,
    group: GroupOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """The audit log: who did what to which adapter, when and why. Read from its file, so nothing need be running."""
    entries = Registry(Settings.load(config).of_group(group).home).audit.read()[-limit:]
    if as_json:
        print_json("[" + ",".join(entry.model_dump_json(exclude_none=True) for entry in entries) + "]")
        return
    Console().print(history_table(entries))
