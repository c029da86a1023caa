"""Approval by a person: when one is asked, which candidates wait, and what stands against letting one serve.

Pure functions of the audit log's entries. The learner asks what becomes of a verdict, the registry all else.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from daemon.registry.audit import AuditEntry
from daemon.registry.lifecycle import State
from daemon.registry.schemas import BASE, HeldAdapter
from evaluation.gates.verdict import Verdict
from streams.errors import LifecycleError, PromotionError

_STATES = {
    Verdict.PROMOTE: State.APPROVED,
    Verdict.REJECT: State.REJECTED,
    Verdict.INCONCLUSIVE: State.INCONCLUSIVE,
    Verdict.HOLD: State.HELD,
}


class Approval(StrEnum):
    """When a person is asked: before every promotion, about candidates on hold only, or never."""

    ALWAYS = "always"
    ON_HOLD = "on_hold"
    NEVER = "never"


def state_after(verdict: Verdict, reason: str, approval: Approval) -> tuple[State, str]:
    """The state that `verdict` brings a candidate into, and the reason for it.

    >>> state_after(Verdict.PROMOTE, "It is better.", Approval.ALWAYS)
    (<State.HELD: 'held'>, 'It is better. Every promotion waits for a person (promotion.approval = always).')
    """
    if verdict is Verdict.PROMOTE and approval is Approval.ALWAYS:
        return State.HELD, f"{reason} Every promotion waits for a person (promotion.approval = always)."
    if verdict is Verdict.HOLD and approval is Approval.NEVER:
        return (
            State.INCONCLUSIVE,
            f"{reason} A person should look at it, and none is asked (promotion.approval = never).",
        )
    return _STATES[verdict], reason


def latest(entries: Iterable[AuditEntry]) -> dict[str, AuditEntry]:
    """The entry that gave each adapter its state."""
    return {entry.subject: entry for entry in entries if entry.state is not None}


def held(entries: Sequence[AuditEntry]) -> list[AuditEntry]:
    """The entries of the candidates that wait for a person, the one that has waited longest first."""
    return sorted(
        (entry for entry in latest(entries).values() if entry.state is State.HELD), key=lambda entry: entry.sequence
    )


def overdue(entries: Sequence[AuditEntry], age_s: float, now: datetime) -> list[AuditEntry]:
    """Those of the held candidates that have waited for `age_s` or longer."""
    return [entry for entry in held(entries) if (now - entry.at).total_seconds() >= age_s]


def described(entries: Sequence[AuditEntry], champion: str, age_s: float) -> tuple[HeldAdapter, ...]:
    """The candidates that wait for a person, as `ratchet status` shows them."""
    return tuple(
        HeldAdapter(
            adapter=entry.subject,
            since=entry.at,
            lapses=entry.at + timedelta(seconds=age_s),
            reason=entry.reason,
            against=entry.against,
            obstacle=overtaken(entry, champion) or _to_be_retrained(entries, entry.subject),
        )
        for entry in held(entries)
    )


def overtaken(entry: AuditEntry, champion: str) -> str | None:
    """Why a candidate that `entry` holds or approves may not take the place of `champion`; None where it may.

    It is better than what it was judged against, which says nothing of an adapter that came to serve since.
    """
    if entry.state not in (State.HELD, State.APPROVED) or entry.against in (None, champion):
        return None
    return (
        f"it was judged against {_short(entry.against)}, and {_short(champion)} serves now: only what was judged "
        "against the champion may take its place"
    )


def check_may_be_approved(entries: Sequence[AuditEntry], adapter: str, champion: str) -> AuditEntry:
    """The entry by which `adapter` waits to serve, held or approved.

    Raises `LifecycleError` when it does not wait, `PromotionError` when it may not take the place of `champion`, or is
    to be trained again without data that it saw.
    """
    entry = check_waits(entries, adapter, State.HELD, State.APPROVED)
    obstacle = overtaken(entry, champion) or _to_be_retrained(entries, adapter)
    if obstacle:
        raise PromotionError(f"{adapter[:12]} cannot be approved: {obstacle}")
    return entry


def check_waits(entries: Sequence[AuditEntry], adapter: str, *states: State) -> AuditEntry:
    """The entry by which `adapter` is in one of `states`. Raises `LifecycleError` when it is in another."""
    entry = latest(entries).get(adapter)
    if entry is None or entry.state is None:
        raise LifecycleError(f"adapter {adapter[:12]} is not known: `ratchet status` lists those that are held")
    if entry.state not in states:
        raise LifecycleError(
            f"adapter {adapter[:12]} is not held but {entry.state.value}, by {entry.actor} at "
            f"{entry.at:%Y-%m-%d %H:%M:%S} UTC ({entry.reason}); `ratchet status` lists those that are held"
        )
    return entry


def _to_be_retrained(entries: Sequence[AuditEntry], adapter: str) -> str | None:
    for entry in entries:
        if entry.subject == adapter and entry.retraction is not None:
            return f"it is to be trained again, since {entry.reason}; reject it"
    return None


def _short(adapter: str | None) -> str:
    return "the base model" if adapter in (None, BASE) else str(adapter)[:12]
