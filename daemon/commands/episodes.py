"""`ratchet episodes list | show`: which episodes are learned from, and why the others are not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table

from daemon.commands.options import ConfigOption, JsonOption, assembly_status, run_async
from daemon.config import Settings
from daemon.console import open_told, plain, print_json
from learners.adapters import AdapterStore
from learners.snapshots import read_episodes
from ratchet_client.settings import FrozenModel
from streams.errors import TrainingError
from streams.store.client import StoreClient
from streams.store.episode_state import EpisodeState
from streams.store.episodes import (
    EpisodeReport,
    EpisodeSummary,
    episode_report,
    newest_episodes,
    whole_id,
)
from streams.trust.groups import homes_in

episodes = typer.Typer(
    name="episodes", no_args_is_help=True, help="Stored episodes: what is learned from, and why not."
)


# Columns that the table has room for beside the ids, before all but the state and the reason are left out.
_WIDE = 84


class Uses(FrozenModel):
    """Snapshots that have the episode or a recovery from it, and adapters that were trained on these.

    Episodes that went exactly the same way stand in a snapshot once, under the id of one of them.
    """

    snapshots: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()


class ShownEpisode(FrozenModel):
    """The JSON of `ratchet episodes show --json`."""

    episode: EpisodeReport
    uses: Uses


@episodes.command("list")
def list_episodes(
    state: Annotated[EpisodeState | None, typer.Option(help="Only those of this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 20,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List episodes with their state and why. Conversations that are still open are counted at the end."""
    settings = Settings.load(config)
    found = run_async(_list(settings.store_url, state, limit))
    if as_json:
        print_json("[" + ",".join(one.model_dump_json() for one in found) + "]")
    else:
        Console().print(_list_table(found))
    assembly = run_async(assembly_status(settings))
    if assembly is not None and assembly.open:
        typer.echo(f"conversations that are still open, and not listed: {open_told(assembly)}", err=as_json)


@episodes.command("show")
def show_episode(
    episode_id: Annotated[str, typer.Argument(metavar="ID", help="The episode's id, or how it begins.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one episode: its steps, which outcomes count, what was decided, its branches, and what learned from it."""
    settings = Settings.load(config)
    report = run_async(_show(settings.store_url, episode_id))
    shown = ShownEpisode(episode=report, uses=_uses(settings.home, {report.summary.episode_id, *report.recoveries}))
    if as_json:
        print_json(shown.model_dump_json())
        return
    for table in _show_tables(shown):
        Console().print(table)


async def _list(url: str, state: EpisodeState | None, limit: int) -> tuple[EpisodeSummary, ...]:
    async with StoreClient(url) as store:
        return await newest_episodes(store, state, limit)


async def _show(url: str, episode_id: str) -> EpisodeReport:
    async with StoreClient(url) as store:
        return await episode_report(store, await whole_id(store, episode_id))


def _uses(home: Path, trajectories: set[str]) -> Uses:
    """The snapshots that hold one of the trajectories, and the adapters trained on them, of all groups."""
    found = [_uses_in(one, trajectories) for one in homes_in(home)]
    return Uses(
        snapshots=tuple(sorted(snapshot for uses in found for snapshot in uses.snapshots)),
        adapters=tuple(adapter for uses in found for adapter in uses.adapters),
    )


def _uses_in(home: Path, trajectories: set[str]) -> Uses:
    snapshots = set()
    for manifest in sorted((home / "snapshots").glob("*/manifest.json")):
        try:
            if not trajectories.isdisjoint(read_episodes(manifest.parent)):
                snapshots.add(manifest.parent.name)
        except TrainingError:
            continue  # one that is not whole tells nothing
    adapters = AdapterStore(home / "adapters")
    trained = []
    for digest in adapters.digests():
        try:
            if adapters.manifest(digest).snapshot.snapshot_id in snapshots:
                trained.append(digest)
        except TrainingError:
            continue
    return Uses(snapshots=tuple(sorted(snapshots)), adapters=tuple(trained))


def _list_table(found: tuple[EpisodeSummary, ...]) -> Table:
    # The id is what the other commands take, so that the columns beside it give way.
    table = Table(
        Column("episode", no_wrap=True, overflow="ignore", min_width=_width(found)),
        Column("state", no_wrap=True),
        "why",
    )
    narrow = Console().width < _WIDE + _width(found)
    for name in () if narrow else ("steps", "outcomes", "task", "principal", "last"):
        table.add_column(name)
    for one in found:
        task = f"{one.environment}: {one.task_id}" if one.task_id is not None else ""
        last = "" if one.last_at is None else f"{one.last_at:%m-%d %H:%M:%S}"
        cells = (one.episode_id, one.state, one.reason, str(one.steps or 0), str(one.outcomes), task)
        row = (*map(plain, cells), plain(one.principal or ""), last)
        table.add_row(*(row[:3] if narrow else row))
    return table


def _width(found: tuple[EpisodeSummary, ...]) -> int:
    return max((cell_len(one.episode_id) for one in found), default=0)


def _show_tables(shown: ShownEpisode) -> Iterator[Table]:
    episode, uses = shown.episode, shown.uses
    yield _summary_table(episode, uses)
    if episode.steps:
        table = Table("step", "by", "shown", "action", "came back", "receipt", title="steps")
        for step in episode.steps:
            by = step.actor_kind if step.adapter is None else f"{step.actor_kind} {step.adapter}"
            number = f"{step.step}, done" if step.done else str(step.step)
            cells = (number, by, f"{step.messages} messages", step.action, step.observation, step.receipt or "")
            table.add_row(*map(plain, cells))
        yield table
    if episode.outcomes:
        table = Table("verifier", "says", "score", "recorded", "counts", title="outcomes")
        for each in episode.outcomes:
            at = "" if each.recorded_at is None else f"{each.recorded_at:%Y-%m-%d %H:%M:%S}"
            counts = "yes" if each.counts else "no: a later one replaced it"
            table.add_row(plain(each.verifier), "success" if each.success else "failure", f"{each.score:g}", at, counts)
        yield table
    if episode.branches:
        table = Table("state", "alternatives", "restored", "why dropped", title="branches")
        for state in episode.branches:
            table.add_row(
                str(state.step), f"{state.executed} of {state.requested}", state.fidelity, plain(state.reason)
            )
        yield table


def _summary_table(episode: EpisodeReport, uses: Uses) -> Table:
    summary = episode.summary
    table = Table(title=plain(summary.episode_id), show_header=False)
    table.add_row("state", summary.state.value)
    table.add_row("why", plain(summary.reason or _MEANINGS.get(summary.state, "")))
    if episode.rewritten_at is not None:
        table.add_row("", f"first seen at step {episode.rewritten_at}: its messages do not continue those before")
    if summary.task_id is not None:
        table.add_row("task", plain(f"{summary.environment}: {summary.task_id}"))
        table.add_row("principal", plain(summary.principal or ""))
    for decision in episode.decisions:
        table.add_row(
            f"sequence {decision.sequence}", plain(": ".join(filter(None, (decision.state, decision.reason))))
        )
    if episode.recovery is not None:
        recovery = episode.recovery
        told = f"{recovery.recovered} of {recovery.attempts} attempts recovered it"
        table.add_row("recovery", plain(f"dropped: {recovery.reason}" if recovery.reason else told))
    table.add_row("snapshots", ", ".join(uses.snapshots) or "none has it by this id")
    table.add_row("adapters", ", ".join(digest[:12] for digest in uses.adapters) or "none was trained on such")
    return table


_MEANINGS = {
    EpisodeState.TRUSTED: "all outcomes that count are successes; it is learned from",
    EpisodeState.FAILED: "all outcomes that count are failures; recoveries from it are learned from",
}
