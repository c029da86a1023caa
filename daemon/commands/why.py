"""`ratchet why`: what an adapter was trained on, or which adapters saw a principal."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from daemon.commands.options import ConfigOption, GroupOption, JsonOption
from daemon.config import Settings
from daemon.console import hold_told, plain, print_json
from daemon.learning.forgetting import ExposedAdapter, exposed_adapters
from daemon.learning.why import WhyReport
from daemon.learning.why import why as explain
from daemon.registry.registry import Registry
from learners.adapters import AdapterStore
from learners.provenance import Provenance
from streams.trust.rules import WITHDRAWAL

_MOST_PRINCIPALS = 20


def why(
    adapter: Annotated[
        str | None, typer.Argument(help="A digest, its beginning, a served name, or `champion`.", show_default=False)
    ] = None,
    principal: Annotated[str | None, typer.Option(help="The reverse: which adapters saw this principal.")] = None,
    group: GroupOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what an adapter was trained on, whose data that was, what its gates said, and who decided. Works offline."""
    if (adapter is None) == (principal is None):
        raise typer.BadParameter("name an adapter or a --principal, and not both")
    home = Settings.load(config).of_group(group).home
    registry, adapters = Registry(home), AdapterStore(home / "adapters")
    provenance = Provenance(adapters, home / "snapshots")
    if adapter is not None:
        report = explain(adapter, registry, adapters, provenance)
        if as_json:
            print_json(report.model_dump_json())
        else:
            Console().print(_why_table(report, group))
        return
    assert principal is not None  # one of the two was given
    exposed = exposed_adapters(registry, provenance, principal)
    if as_json:
        print_json("[" + ",".join(one.model_dump_json() for one in exposed) + "]")
    else:
        Console().print(exposure_table(exposed, f"adapters that saw {principal}"))


def exposure_table(exposed: tuple[ExposedAdapter, ...], title: str) -> Table:
    """The adapters that saw a principal, one a row."""
    table = Table("adapter", "state", "trajectories", "seen by", title=plain(title))
    for one in exposed:
        count = "cannot be told" if one.trajectories is None else str(one.trajectories)
        state = "serves now" if one.serves else one.state or "never judged"
        table.add_row(one.adapter[:12], state, count, "itself" if one.seen_by == one.adapter else one.seen_by[:12])
    return table


def _why_table(report: WhyReport, group: str) -> Table:
    table = Table(title=report.adapter, show_header=False)
    snapshot = report.snapshot
    table.add_row("state", ("serves now" if report.serves else report.state) or "never judged")
    table.add_row("trained", f"{report.trained_at:%Y-%m-%d %H:%M} UTC by Ratchet {report.code_version}")
    table.add_row("base model", f"{report.base} ({report.base_digest[:12]})")
    table.add_row("trained on from", " ← ".join(parent[:12] for parent in report.parents) or "the base model")
    table.add_row("objectives", ", then ".join(map(str, report.settings.stages)))
    table.add_row("snapshot", snapshot.snapshot_id)
    table.add_row(
        "as of", f"sequence {snapshot.as_of}, without principals that revoked consent until {snapshot.retracted_as_of}"
    )
    table.add_row("log", ", ".join(f"{place} < {offset}" for place, offset in sorted(snapshot.offsets.items())))
    episodes = ", ".join(f"{count} of actor {kind}" for kind, count in sorted(snapshot.episodes.items()))
    table.add_row("episodes", f"{episodes}; {snapshot.steps} steps, {snapshot.branches} branches")
    if snapshot.canaries:
        table.add_row("canaries", ", ".join(canary.episode_id[:12] for canary in snapshot.canaries))
    table.add_row("principals", _principals(report.principals))
    table.add_row("its parents'", _principals(report.inherited))
    for result in report.gates:
        table.add_row(f"gate {plain(result.gate)}", f"{result.verdict.value}: {plain(result.reason)}")
    for entry in report.states:
        assert entry.state is not None  # of entries that gave it a state
        said = f"{entry.at:%Y-%m-%d %H:%M} UTC by {plain(entry.actor)}: {plain(entry.reason)}"
        table.add_row(entry.state.value, said)
    if report.hold is not None:
        table.add_row("promotion", plain(hold_told(report.hold, group)))
    if report.note:
        table.add_row("note", plain(report.note))
    if report.retrain:
        table.add_row("to be retrained", ", ".join(map(_cause, report.retrain)))
    return table


def _cause(retrain: str) -> str:
    return f"by lost trust {retrain}" if retrain.startswith(WITHDRAWAL) else f"by retraction {retrain}"


def _principals(counts: dict[str, int] | None) -> str:
    if counts is None:
        return "files are gone that would tell"
    named = [f"{plain(principal)} ({count})" for principal, count in list(counts.items())[:_MOST_PRINCIPALS]]
    if len(counts) > len(named):
        named.append(f"and {len(counts) - len(named)} more: --json")
    return ", ".join(named) or "none"
