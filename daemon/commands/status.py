"""`ratchet status`: what the serve role and the assembler say of themselves."""

from rich.console import Console

from daemon.commands.options import ConfigOption, GroupOption, JsonOption, assembly_status, control_of, run_async
from daemon.config import Settings
from daemon.console import UNLOADED, learner_told, plain, print_json, status_table
from daemon.registry.schemas import GroupStatus, StatusReport


def status(group: GroupOption = "", config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show what serves, which candidates wait for a person, what is stored, and how the last cycles ended."""
    report = run_async(_report(Settings.load(config), group))
    if as_json:
        print_json(report.model_dump_json())
    else:
        table = status_table(report)
        for other in report.groups:
            if other.name != report.group:
                table.add_row(f"group {other.name or 'default'}", plain(_told(other)))
        Console().print(table)


def _told(group: GroupStatus) -> str:
    """What serves a group, and what waits, in a line."""
    facts = (
        f"champion {group.champion[:12]}",
        group.served or (UNLOADED if group.is_cold else "nothing serves yet"),
        f"{group.held} wait for a person" if group.held else "",
        f"canary of {group.canary[:12]}" if group.canary else "",
        "promotion is on hold" if group.on_hold else "",
        "" if group.learner is None else f"learner: {learner_told(group.learner)}",
    )
    return "; ".join(filter(None, facts))


async def _report(settings: Settings, group: str) -> StatusReport:
    async with control_of(settings, group) as control:
        report = await control.status()
    return report.model_copy(update={"assembly": await assembly_status(settings)})
