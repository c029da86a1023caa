"""The report of `ratchet environment check`: a table of promises, and for each broken one what its author needs."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from daemon.console import plain
from ratchet_client.settings import FrozenModel
from streams.sandboxes.promises import Check
from streams.sandboxes.protocol import Description


class ConformanceReport(FrozenModel):
    """The JSON of `ratchet environment check --json`. `played` has the actions of each task that was played."""

    environment: str
    description: Description
    tasks: int
    checks: tuple[Check, ...]
    played: dict[str, tuple[str, ...]]

    @property
    def broken(self) -> list[Check]:
        return [check for check in self.checks if check.kept is False]


def print_report(report: ConformanceReport, console: Console) -> None:
    """The table, and then for each broken promise what was tried, expected and seen, and what to do."""
    table = Table("promise", "kept", "seen", title=f"{report.environment}: {report.tasks} tasks")
    for check in report.checks:
        kept = {True: "yes", False: "[red]no[/red]", None: "[dim]not tried[/dim]"}[check.kept]
        table.add_row(
            check.name, kept, "below" if check.kept is False else plain(f"{check.seen}. {check.remedy}".strip(". "))
        )
    console.print(table)
    for checks in _by_what_came(report.broken):
        console.print("\n" + "\n".join(f"[bold]{plain(check.name)}[/bold]" for check in checks))
        check = checks[0]
        told = {"tried": check.tried, "expected": check.expected, "came": check.seen, "to do": check.remedy}
        for name, text in told.items():
            if text:
                lines = f"\n{'':11}".join(map(plain, text.split("\n")))
                console.print(f"  {name:<9}{lines}", soft_wrap=True, highlight=False)


def _by_what_came(broken: Sequence[Check]) -> Iterable[list[Check]]:
    """One error may break many promises, as where no server answers: it is told once, for the first of them."""
    groups: dict[str, list[Check]] = {}
    for check in broken:
        groups.setdefault(check.seen, []).append(check)
    return groups.values()
