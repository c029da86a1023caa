"""`ratchet verify`: look whether any file of the home was changed."""

from typing import Annotated

import typer
from rich.console import Console

from daemon.commands.options import ConfigOption, JsonOption
from daemon.config import Settings
from daemon.console import plain, print_json
from daemon.registry.verifying import Verification
from daemon.registry.verifying import verify as verify_home
from ratchet_client.errors import ConfigurationError


def verify(
    strict: Annotated[bool, typer.Option("--strict", help="An adapter without a signature is a failure too.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the audit log, refs, adapters and their signatures, gate reports, snapshots and keys. Works offline."""
    home = Settings.load(config).home
    if not home.is_dir():
        raise ConfigurationError(f"there is no home at {home}: is RATCHET_HOME, or `home` in the configuration, right?")
    result = verify_home(home)
    if as_json:
        print_json(result.model_dump_json())
    else:
        _print(result)
    if result.findings or (strict and result.unsigned):
        raise typer.Exit(1)


def _print(result: Verification) -> None:
    console = Console(soft_wrap=True)
    for finding in result.findings:
        console.print(f"[red]{plain(finding.path)}[/red]: {plain(finding.problem)}. To do: {plain(finding.remedy)}")
    for adapter in result.unsigned:
        console.print(
            f"adapter {adapter[:12]} has no signature: it comes from before there were any, or it was removed"
        )
    found = f"{len(result.findings)} files are not what they were" if result.findings else "nothing was changed"
    counted = f"{result.entries} entries of the audit log, {result.adapters} adapters, {result.snapshots} snapshots"
    console.print(f"{counted}: {found}")
    console.print(f"not checked: {result.unchecked}")
