"""Output of the command line: progress on stderr, results on stdout, as tables for people or as JSON."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from daemon.printable import printable, printable_json
from daemon.registry.audit import AuditEntry
from daemon.registry.hints import command, decisions
from daemon.registry.learner_status import LearnerPhase, LearnerReport, LearnerStatus
from daemon.registry.schemas import (
    BASE,
    CanaryReport,
    CaptureStatus,
    CycleReport,
    Drill,
    HeldAdapter,
    Hold,
    StatusReport,
)
from evaluation.account_summary import AccountSummary
from evaluation.gates.verdict import GateResult
from streams.assembly.status import AssemblyStatus
from streams.store.episode_state import EpisodeState
from streams.store.status import most_frequent

UNLOADED = "nothing: it is loaded when a call asks for it"
_LINE_EVERY_S = 15.0
_STATES: dict[str, str] = {
    EpisodeState.TRUSTED: "learned from",
    EpisodeState.FAILED: "recoveries from them are learned from",
    EpisodeState.HELD_OUT: "trusted or failed, of tasks that are kept for gates",
    EpisodeState.UNTRUSTED: "they lost trust by later events",
    EpisodeState.FLAGGED: "never learned from",
}


class Narrator:
    """Tells how long work advances: bars on a terminal, a line now and then elsewhere. Writes to stderr."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._began = time.monotonic()
        self._last_line: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        self.console.print(f"[dim]{self._clock()}[/dim] {printable(text)}", highlight=False, soft_wrap=True)

    def advance(self, step: str, done: int, total: int | None, note: str = "") -> None:
        """`done` of `total` of `step` are done; None where nobody knows how many there will be."""
        step, note = printable(step), printable(note)
        if step not in self._tasks:
            self._tasks[step] = self._bars.add_task(step, total=total, note=note)
        self._bars.update(self._tasks[step], completed=done, total=total, note=note)
        if self.console.is_terminal:
            return
        now = time.monotonic()
        if (total is not None and done >= total) or now - self._last_line.get(step, 0.0) >= _LINE_EVERY_S:
            self._last_line[step] = now
            self.console.print(
                f"{self._clock()} {step}: {done}/{'?' if total is None else total} {note}".rstrip(),
                highlight=False,
                markup=False,
                soft_wrap=True,
            )

    def _clock(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        return f"{minutes:02d}:{seconds:02d}"


def plain(text: str) -> str:
    r"""Anybody's text as a cell of a table: it neither commands the terminal nor is read as markup.

    >>> plain("lost [/x]\x1b[2J")
    'lost \\[/x]\\x1b[2J'
    """
    return escape(printable(text))


def print_json(document: str) -> None:
    """One JSON document on stdout, with nothing around it, and nothing in it that commands a terminal."""
    sys.stdout.write(printable_json(document.rstrip()) + "\n")
    sys.stdout.flush()


def status_table(report: StatusReport) -> Table:
    """The table of `ratchet status`."""
    table = Table(Column(), Column(overflow="fold"), title="Ratchet", show_header=False)
    table.add_row("agents ask for", report.alias)
    table.add_row("served now", report.served or (UNLOADED if report.is_cold else "nothing yet"))
    for replica in report.replicas:
        if replica.reason or len(report.replicas) > 1:
            told = replica.reason or f"takes requests, {replica.in_flight} in flight"
            table.add_row(f"engine {replica.url}", plain(told))
    table.add_row("champion", report.champion)
    table.add_row("previous", report.previous)
    if report.anchor != BASE:
        table.add_row("anchor", report.anchor)
    if report.learner is not None:
        table.add_row("learner", plain(learner_told(report.learner)))
        last = report.learner.last_cycle
        if last is not None:
            table.add_row("last cycle", plain(f"{last.verdict.value}, {_ago(last.at)}: {last.reason}"))
    if report.holdout is not None and report.holdout.trials:
        table.add_row("held-out tasks", account_told(report.holdout))
    if report.drill is not None:
        table.add_row("rollback drill", plain(drill_told(report.drill)))
    if report.hold is not None:
        table.add_row("promotion", plain(hold_told(report.hold, report.group)))
    for adapter in report.held:
        table.add_row(f"held {adapter.adapter[:12]}", _held(adapter))
        if adapter.obstacle:
            table.add_row("", f"cannot be approved: {plain(adapter.obstacle)}")
    if report.held:
        table.add_row("", f"a person decides: {decisions(report.group)}")
    if report.retrain:
        champion = "the champion and " if report.champion in report.retrain else ""
        others = len(set(report.retrain) - {report.champion})
        table.add_row(
            "to be retrained",
            f"{champion}{others} other adapters: consent was revoked, or an episode lost trust (`ratchet history`)",
        )
    if report.store is None or not report.store_answers:
        since = "" if report.store_at is None else f"; its figures are those of {_ago(report.store_at)}"
        table.add_row("store", f"does not answer{since}")
    if report.store is not None:
        if report.store.authenticated is False:
            table.add_row(
                "warning", "events are not authenticated: any producer can pass for an expert (`ratchet doctor`)"
            )
        for kind, count in report.store.events.items():
            if kind.startswith("practice_"):
                continue
            table.add_row(f"{kind} events", str(count))
        branches = report.store.branches
        for label, value in _episodes(report.store.episodes):
            table.add_row(label, plain(value))
        for judge, agreement in report.store.judges.items():
            table.add_row(plain(judge), agreement.words())
        table.add_row("branches", f"{branches.executed} of {branches.requested} run, {branches.dropped} states dropped")
        for reason, count in report.store.dropped.items():
            table.add_row("", f"{count} dropped: {plain(reason)}")
        recoveries = report.store.recoveries
        table.add_row("recoveries", f"{recoveries.recoveries} of {recoveries.episodes} failed episodes")
        if practice := report.store.practice.words():
            table.add_row("practice", practice)
        table.add_row("dead-letter records", f"{report.store.dead_letters}, and {report.store.quarantined} refused")
        table.add_row("redacted", f"{sum(report.store.redactions.values())} values")
    if report.capture is not None:
        table.add_row("captured calls", _captured(report.capture))
    if report.assembly is not None:
        table.add_row(
            "assembled", f"{report.assembly.steps} steps, {report.assembly.without_content} calls without content"
        )
        if report.assembly.open:
            table.add_row("open conversations", open_told(report.assembly))
        for reason, count in report.assembly.absences.items():
            table.add_row("", f"{count}: {plain(reason)}")
        for name, count in report.assembly.unrecognised.items():
            table.add_row("", f"{count} spans of no known dialect: {plain(name)}")
    if report.canary is not None:
        table.add_row("canary", plain(_canary(report.canary)))
    for cycle in report.cycles:
        table.add_row(f"cycle {cycle.cycle}", _outcome(cycle))
    return table


def drill_told(drill: Drill) -> str:
    """The last drill of the rollback in a sentence."""
    what = f"to {drill.adapter[:12]}, {_ago(drill.began)}"
    if drill.seconds is None:
        return f"FAILED {what}: {drill.failed}"
    flip = "" if drill.flip_s is None else f", and {drill.flip_s:.3f} s to change who serves"
    return f"{drill.seconds:.2f} s to the first reply{flip}; {what}"


def hold_told(hold: Hold, group: str) -> str:
    """The hold of a group in a sentence."""
    return (
        f"on hold since {_ago(hold.since)}, by {hold.actor}: {hold.reason}. What passes its gates waits for a person; "
        f"{command('resume', group)} ends it"
    )


def open_told(assembly: AssemblyStatus) -> str:
    """The conversations that are not episodes yet, and when they will be, if nothing more comes."""
    first, last = _seconds(assembly.next_settles_s), _seconds(assembly.all_settle_s)
    settles = f"it settles in {last}" if assembly.open == 1 else f"the first settles in {first}, all in {last}"
    return f"{assembly.open}, the oldest silent for {_seconds(assembly.open_s)}; without more calls {settles}"


def learner_told(report: LearnerReport) -> str:
    """The learner's state in a sentence."""
    status = report.status
    if status is None:
        return "not running: none has run with this home"
    if not report.running:
        error = f": {status.error}" if status.error else ""
        at = "" if status.phase is LearnerPhase.STOPPED else f", when it was {status.phase.value.replace('_', ' ')}"
        return f"not running since {_ago(status.beat_at)}{at}{error}"
    episodes = f"{status.new} of {status.needed} new trusted episodes"
    left = "" if status.left_s is None else f", about {duration(timedelta(seconds=status.left_s))} left"
    memory = f", {status.memory_bytes / 1e9:.1f} GB" if status.memory_bytes else ""
    loss = "" if status.loss is None else f", loss {status.loss:.3f}"
    loss += f", {status.tokens_per_s:.0f} tokens/s" if status.tokens_per_s else ""
    played = f": {status.done} of at most {status.total} episodes" if status.total else ""
    match status.phase:
        case LearnerPhase.OFF:
            return "learns nothing: no domain is set (`ratchet doctor`)"
        case LearnerPhase.WAITING:
            return f"waits: {episodes}"
        case LearnerPhase.PRACTICE:
            return f"practises train tasks; {episodes}"
        case LearnerPhase.APPROVAL:
            return f"awaits a person's approval; {episodes}"
        case LearnerPhase.CANARY:
            return "waits for the end of the canary"
        case LearnerPhase.BRANCHES:
            waited = duration(datetime.now(UTC) - status.since)
            return f"waits for {status.missing} branches, for {waited}{_until(status)}; {episodes}"
        case LearnerPhase.TRAINING if status.total:
            return f"trains: {status.objective}, update {status.done} of {status.total}{loss}{left}{memory}"
        case LearnerPhase.TRAINING:
            return "begins a training"
        case LearnerPhase.GATE:
            return f"at the gate {status.gate}{played}" if status.gate else "begins a trial"
        case LearnerPhase.OUT_OF_DOMAIN:
            return f"plays the tasks of the other fold{played}"
        case LearnerPhase.PAUSED:
            times = f" {status.failures} in a row" if status.failures > 1 else ""
            return f"paused after a failure{times}{_until(status)}: {status.error}"
        case _:
            return status.phase.value


def _until(status: LearnerStatus) -> str:
    return "" if status.until is None else f", until {status.until.astimezone(UTC):%H:%M:%S} UTC"


def _ago(at: datetime) -> str:
    """When, and how long ago."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC ({duration(datetime.now(UTC) - at)} ago)"


def _episodes(states: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[str, str]]:
    """The rows of the states of episodes and of the most frequent reasons, the same as `ratchet episodes list` has."""
    for state in (each.value for each in EpisodeState):
        reasons = states.get(state, {})
        if not reasons and state != EpisodeState.TRUSTED:
            continue
        meaning = f": {_STATES[state]}" if state in _STATES else ""
        yield f"{state} episodes", f"{sum(reasons.values())}{meaning}"
        yield from (("", f"{count}: {reason}") for reason, count in most_frequent(reasons).items() if reason)


def account_told(account: AccountSummary) -> str:
    """The account of held-out tasks in a sentence."""
    fresh = "" if account.fresh is None else f"{account.fresh} confirmation tasks are fresh; "
    return (
        f"{fresh}{account.uses.get('selection', 0)} selection tasks were played, {account.mean_uses:.1f} times on "
        f"average; other ones are drawn after {account.gates_until_rotation} more gates or the next promotion"
    )


def history_table(entries: Sequence[AuditEntry]) -> Table:
    """The table of `ratchet history`."""
    table = Table("when", "who", "what", "adapter", "why")
    for entry in entries:
        what = entry.action.value if entry.state is None else f"{entry.action.value} → {entry.state.value}"
        why = plain(entry.reason)
        if entry.cycle is not None:
            what, why = f"{what} {entry.cycle.cycle}", _outcome(entry.cycle)
        table.add_row(f"{entry.at:%Y-%m-%d %H:%M:%S}", plain(entry.actor), what, entry.subject[:12], why)
    return table


def _outcome(cycle: CycleReport) -> str:
    """The verdict on the candidate of a cycle, and those of its gates."""
    gates = f" ({_verdicts(cycle.gates)})" if cycle.gates else ""
    return f"{cycle.verdict.value}{gates}: {plain(cycle.reason)}"


def _verdicts(gates: Sequence[GateResult]) -> str:
    return plain(", ".join(f"{result.gate} {result.verdict.value}" for result in gates))


def _held(adapter: HeldAdapter) -> str:
    waited = datetime.now(UTC) - adapter.since
    return f"for {duration(waited)}, until {adapter.lapses:%Y-%m-%d %H:%M} UTC: {plain(adapter.reason)}"


def _seconds(seconds: int) -> str:
    """Short times in seconds, others as `duration` has them."""
    return f"{seconds} s" if seconds < 120 else duration(timedelta(seconds=seconds))


def duration(waited: timedelta) -> str:
    """In the largest two units.

    >>> duration(timedelta(days=2, hours=3, minutes=4)), duration(timedelta(minutes=5)), duration(timedelta(0))
    ('2 d 3 h', '5 min', '0 min')
    """
    minutes = max(0, int(waited.total_seconds() // 60))
    days, hours = minutes // 1440, minutes // 60 % 24
    parts = (f"{days} d" if days else "", f"{hours} h" if hours else "", "" if days else f"{minutes % 60} min")
    return " ".join(part for part in parts if part)


def _canary(canary: CanaryReport) -> str:
    state = f"answers {canary.share:.0%} of new episodes" if canary.ended is None else canary.ended.value
    told = f"{canary.adapter[:12]} {state}: {canary.reason}"
    shadow = canary.shadow
    if shadow is not None and shadow.compared:
        told += f" Its answers to {shadow.compared} copied calls agree in {shadow.agreed}."
    return told


def _captured(capture: CaptureStatus) -> str:
    if not capture.enabled:
        return "not recorded (serving.capture.enabled)"
    lost = f", {capture.dropped + capture.refused} lost" if capture.dropped or capture.refused else ""
    return f"{capture.published}{lost}, {capture.waiting} wait for the log"
