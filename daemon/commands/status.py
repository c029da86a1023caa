"""`ratchet status`: what the serve role and the assembler say of themselves."""

from rich.console import Console

from daemon.commands.options import ConfigOption, GroupOption, JsonOption, assembly_status, control_of, run_async
from daemon.config import Settings
from daemon.console import print_json, status_table
from daemon.registry.schemas import StatusReport


def status(group: GroupOption = "", config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show what serves, which candidates wait for a person, what is stored, and how the last cycles ended."""
    report = run_async(_report(Settings.load(config), group))
    if as_json:
        print_json(report.model_dump_json())
    else:
        Console().print(status_table(report))


async def _report(settings: Settings, group: str) -> StatusReport:
    async with control_of(settings, group) as control:
        report = await control.status()
    return report.model_copy(update={"assembly": await assembly_status(settings)})
