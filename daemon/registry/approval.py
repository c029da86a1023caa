"""Approval by a person: when one is asked, which candidates wait, and what stands against letting one serve.

Pure functions of the audit log's entries. The learner asks what becomes of a verdict, the registry all else.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from daemon.registry.audit import AuditEntry
from daemon.registry.hints import command
from daemon.registry.lifecycle import State
from daemon.registry.schemas import BASE, HeldAdapter
from evaluation.gates.verdict import Verdict
from streams.errors import LifecycleError, PromotionError

_NO_WAY = "it must win a gate first"
_ELSE = {
    State.SERVING: "it serves",
    State.CANARY: "wait for the end of the canary",
    State.QUARANTINED: "it never serves again",
}
_COMMANDS = {State.RETIRED: ("rollback", "--to"), State.HELD: ("approve", ""), State.APPROVED: ("approve", "")}

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


def state_after(verdict: Verdict, reason: str, approval: Approval, on_hold: str = "") -> tuple[State, str]:
    """The state that `verdict` brings a candidate into, and the reason for it; `on_hold` tells of a hold that stands.

    >>> state_after(Verdict.PROMOTE, "It is better.", Approval.ALWAYS)
    (<State.HELD: 'held'>, 'It is better. Every promotion waits for a person (promotion.approval = always).')
    """
    if verdict is Verdict.PROMOTE and approval is Approval.ALWAYS:
        return State.HELD, f"{reason} Every promotion waits for a person (promotion.approval = always)."
    if verdict is Verdict.PROMOTE and on_hold:
        return State.HELD, f"{reason} It waits for a person: {on_hold}."
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
            obstacle=_obstacle(entries, entry.subject, champion),
        )
        for entry in held(entries)
    )


def overtaken(entries: Sequence[AuditEntry], adapter: str, champion: str) -> str | None:
    """Why `adapter`, which is held or approved, may not take the place of `champion`; None where it may.

    It is better than what it was judged against, which says nothing of an adapter that came to serve since.
    """
    entry = latest(entries).get(adapter)
    if entry is None or entry.state not in (State.HELD, State.APPROVED):
        return None
    judged = (each.against for each in reversed(entries) if each.subject == adapter and each.against is not None)
    against = next(judged, champion)
    if against == champion:
        return None
    return (
        f"it was judged against {_short(against)}, and {_short(champion)} serves now: only what was judged "
        "against the champion may take its place"
    )


def check_not_overtaken(entries: Sequence[AuditEntry], adapter: str, champion: str) -> None:
    """Raise `PromotionError` when `overtaken` says why `adapter` may not serve."""
    obstacle = overtaken(entries, adapter, champion)
    if obstacle:
        raise PromotionError(f"{adapter[:12]} may not serve: {obstacle}")


def check_may_be_approved(entries: Sequence[AuditEntry], adapter: str, champion: str, group: str) -> AuditEntry:
    """The entry by which `adapter` waits to serve, held or approved.

    Raises `LifecycleError` when it does not wait, `PromotionError` when it may not take the place of `champion`, or is
    to be trained again without data that it saw.
    """
    entry = check_waits(entries, adapter, group, State.HELD, State.APPROVED)
    obstacle = _obstacle(entries, adapter, champion)
    if obstacle:
        raise PromotionError(f"{adapter[:12]} cannot be approved: {obstacle}")
    return entry


def check_may_be_restored(entries: Sequence[AuditEntry], adapter: str, group: str) -> None:
    """Raise `LifecycleError` unless `adapter` has served and was rolled back since.

    Raises `PromotionError` when it is to be trained again without data that it saw.
    """
    last = latest(entries).get(adapter)
    if last is None or last.state is None:
        raise LifecycleError(
            f"adapter {adapter[:12]} is not known: {command('history', group)} lists those that were rolled back"
        )
    if last.state is not State.ROLLED_BACK:
        raise LifecycleError(
            f"adapter {adapter[:12]} cannot be restored: it was not rolled back but is {last.state.value}, by "
            f"{last.actor} at {last.at:%Y-%m-%d %H:%M:%S} UTC ({last.reason}); {_instead(last.state, group)}"
        )
    if not any(entry.subject == adapter and entry.state is State.SERVING for entry in entries):
        raise LifecycleError(
            f"adapter {adapter[:12]} cannot be restored: it was rolled back in a canary and has never been promoted; "
            "it must win a gate again"
        )
    obstacle = _to_be_retrained(entries, adapter)
    if obstacle:
        raise PromotionError(f"{adapter[:12]} cannot be restored: {obstacle}")


def check_waits(entries: Sequence[AuditEntry], adapter: str, group: str, *states: State) -> AuditEntry:
    """The entry by which `adapter` is in one of `states`. Raises `LifecycleError` when it is in another."""
    entry = latest(entries).get(adapter)
    if entry is None or entry.state is None:
        raise LifecycleError(
            f"adapter {adapter[:12]} is not known: {command('status', group)} lists those that are held"
        )
    if entry.state not in states:
        raise LifecycleError(
            f"adapter {adapter[:12]} is not held but {entry.state.value}, by {entry.actor} at "
            f"{entry.at:%Y-%m-%d %H:%M:%S} UTC ({entry.reason}); {command('status', group)} lists those that are held"
        )
    return entry


def _instead(state: State, group: str) -> str:
    """The way for an adapter of that state to serve, which is not to restore it."""
    if state not in _COMMANDS:
        return _ELSE.get(state, _NO_WAY)
    name, rest = _COMMANDS[state]
    return f"{command(name, group, rest)} it"


def _obstacle(entries: Sequence[AuditEntry], adapter: str, champion: str) -> str | None:
    retrained = _to_be_retrained(entries, adapter)
    return overtaken(entries, adapter, champion) or (f"{retrained}; reject it" if retrained else None)


def _to_be_retrained(entries: Sequence[AuditEntry], adapter: str) -> str | None:
    for entry in entries:
        if entry.subject == adapter and entry.retraction is not None:
            return f"it is to be trained again, since {entry.reason}"
    return None


def _short(adapter: str) -> str:
    return "the base model" if adapter == BASE else adapter[:12]
