"""Canaries in the audit log: that one began, which one runs, and how each ended. Promotion goes through it.

The log is the only place that says so: an adapter whose state is `canary` is in one, as its newest start says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from daemon.registry.audit import Action, AuditEntry, AuditEvent
from daemon.registry.lifecycle import State, check
from daemon.registry.refs import states_of
from daemon.registry.registry import Registry
from daemon.registry.schemas import CanaryEnd, CanaryReport, CanaryStart
from streams.errors import LifecycleError, PromotionError

ENDS: dict[CanaryEnd, State] = {
    CanaryEnd.PROMOTED: State.SERVING,
    CanaryEnd.ROLLED_BACK: State.ROLLED_BACK,
    CanaryEnd.INCONCLUSIVE: State.INCONCLUSIVE,
    CanaryEnd.CANCELLED: State.APPROVED,
}
"""The state in which each end of a canary leaves its adapter."""


@dataclass(frozen=True, slots=True)
class RunningCanary:
    """The canary of `adapter`, as its entry in the log has it; `sequence` is that of the entry."""

    adapter: str
    start: CanaryStart
    began: datetime
    sequence: int


def running_canary(registry: Registry) -> RunningCanary | None:
    """The canary that runs; None where none does."""
    return _running(registry.audit.read())


def last_canary(registry: Registry) -> CanaryReport | None:
    """The report of the canary that ended last; None where none did."""
    return next((entry.canary for entry in reversed(registry.audit.read()) if entry.canary is not None), None)


def start_canary(registry: Registry, adapter: str, start: CanaryStart, actor: str, reason: str) -> RunningCanary:
    """Let `adapter` enter the state `canary`.

    Raises `LifecycleError` when it cannot, `PromotionError` when another one is in it or the champion has changed.
    """
    with registry.audit.locked() as log:
        entries = log.read()
        running = _running(entries)
        if running is not None:
            raise PromotionError(f"the canary of {running.adapter[:12]} still runs: end it first, or wait for its end")
        if registry.refs().champion != start.champion:
            raise PromotionError("the champion has changed meanwhile: ask for the promotion again")
        check(adapter, states_of(entries).get(adapter), State.CANARY)
        entry = log.append(
            AuditEvent(
                actor=actor,
                action=Action.CANARY_STARTED,
                subject=adapter,
                reason=reason,
                state=State.CANARY,
                canary_start=start,
            )
        )[0]
        return RunningCanary(adapter, start, entry.at, entry.sequence)


def end_canary(registry: Registry, report: CanaryReport, actor: str) -> None:
    """Record the end of the canary that runs, and the state in which it leaves the adapter.

    One that ended by a promotion is recorded after that, and changes no state. Raises `LifecycleError` when it has
    ended before.
    """
    if report.ended is None:
        raise ValueError("the report is of a canary that runs")
    state = ENDS[report.ended]
    with registry.audit.locked() as log:
        if state is not State.SERVING:
            current = states_of(log.read()).get(report.adapter)
            if current is not State.CANARY:
                raise LifecycleError(f"adapter {report.adapter[:12]} is not in a canary, so none can end")
            check(report.adapter, current, state)
        log.append(
            AuditEvent(
                actor=actor,
                action=Action.CANARY_ENDED,
                subject=report.adapter,
                reason=report.reason,
                state=None if state is State.SERVING else state,
                canary=report,
            )
        )


def unrecorded_promotion(registry: Registry) -> RunningCanary | None:
    """The newest canary, if its adapter has left it by a promotion that a crash kept from being reported."""
    for entry in reversed(registry.audit.read()):
        if entry.canary is not None:
            return None
        if entry.canary_start is not None:
            found = RunningCanary(entry.subject, entry.canary_start, entry.at, entry.sequence)
            return None if registry.state(entry.subject) is State.CANARY else found
    return None


def complete_report(registry: Registry, actor: str) -> None:
    """Report a canary whose candidate was promoted right before a crash; does nothing where there is none."""
    unrecorded = unrecorded_promotion(registry)
    if unrecorded is None:
        return
    report = CanaryReport(
        adapter=unrecorded.adapter,
        champion=unrecorded.start.champion,
        share=unrecorded.start.share,
        began=unrecorded.began,
        ended=CanaryEnd.PROMOTED,
        reason="a crash came right after the promotion, so its figures are lost",
    )
    end_canary(registry, report, actor)


def check_no_canary_runs(registry: Registry, adapter: str, actor: str) -> None:
    """Raise `PromotionError`, and record it for `adapter`, which is to be promoted, while a canary runs."""
    running = running_canary(registry)
    if running is None:
        return
    message = f"the canary of {running.adapter[:12]} runs: wait for its end, or promote with at_once"
    registry.record_failure(adapter, actor, message)
    raise PromotionError(message)


def _running(entries: Sequence[AuditEntry]) -> RunningCanary | None:
    states = states_of(entries)
    for entry in reversed(entries):
        if entry.canary_start is not None:
            if states[entry.subject] is not State.CANARY:
                return None
            return RunningCanary(entry.subject, entry.canary_start, entry.at, entry.sequence)
    return None
