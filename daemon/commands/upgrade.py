"""`ratchet upgrade`: bring the home of an earlier version to this one, with a backup of it before."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from daemon.commands.backup import source_of
from daemon.commands.options import ConfigOption, JsonOption, run_async
from daemon.config import Settings
from daemon.console import Narrator, plain, print_json
from daemon.upgrades.formats import Format
from daemon.upgrades.upgrading import UpgradeReport, planned
from daemon.upgrades.upgrading import upgrade as upgrade_home


def upgrade(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and write nothing.")] = False,
    backup: Annotated[
        Path | None, typer.Option("--backup", help="A new folder for the backup; by default one beside the home.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the home of an earlier version to this one, with a backup of it before. Ratchet must not run.

    Killed at any point, the same command goes on and ends the same.
    """
    source = source_of(Settings.load(config), config, as_files=True)
    report = planned(source) if dry_run else run_async(upgrade_home(source, backup, Narrator().say))
    if as_json:
        print_json(report.model_dump_json())
    else:
        _print(report)


def _print(report: UpgradeReport) -> None:
    console = Console(soft_wrap=True)
    table = Table("format", "files", "has", "becomes", "by")
    for each in report.formats:
        table.add_row(each.name, str(each.files), _has(each), _becomes(each), plain("; ".join(each.changes)))
    console.print(table)
    if report.backup is not None:
        console.print(f"the home as it was is in {plain(str(report.backup))}", highlight=False)
    if not report.done:
        console.print("`ratchet upgrade` has yet to do this")
    elif report.backup is None:
        console.print(f"{plain(str(report.home))} has the formats of this version: nothing to do", highlight=False)
    else:
        console.print(f"{plain(str(report.home))} has the formats of this version now", highlight=False)


def _has(format_: Format) -> str:
    return ", ".join(map(str, format_.found)) or "no version"


def _becomes(format_: Format) -> str:
    """The version after an upgrade: only what is changed gets another, the rest is read as it is."""
    return str(format_.current) if format_.changes else "stays"
