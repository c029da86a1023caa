"""Holds: while one stands, nothing is promoted but what a person approves, and nothing else changes.

An operator begins and ends it; a rollback begins one too. The audit log is the only place that says so. The learner
asks what becomes of a candidate that won, the registry before each promotion.
"""

from collections.abc import Sequence

from daemon.registry.audit import Action, AuditEntry, AuditEvent, AuditLog, LockedLog
from daemon.registry.hints import command
from daemon.registry.schemas import Hold
from streams.errors import PromotionError


def standing(entries: Sequence[AuditEntry]) -> AuditEntry | None:
    """The entry that began the hold which stands; None where none does."""
    last = next((entry for entry in reversed(entries) if entry.action in (Action.HOLD, Action.RESUMED)), None)
    return last if last is not None and last.action is Action.HOLD else None


def told(entries: Sequence[AuditEntry]) -> Hold | None:
    """The hold that stands, for those who ask."""
    entry = standing(entries)
    return None if entry is None else Hold(since=entry.at, actor=entry.actor, reason=entry.reason)


def why_on_hold(entry: AuditEntry) -> str:
    """A sentence about the hold that `entry` began."""
    return f"promotion has been on hold since {entry.at:%Y-%m-%d %H:%M:%S} UTC, by {entry.actor} ({entry.reason})"


def check_none(entries: Sequence[AuditEntry], adapter: str, group: str) -> None:
    """Raise `PromotionError` when a hold of `group` keeps `adapter` from being promoted without a person's approval."""
    entry = standing(entries)
    if entry is not None:
        raise PromotionError(
            f"{adapter[:12]} is not promoted: {why_on_hold(entry)}; {command('approve', group)} lets it serve, "
            f"{command('resume', group)} ends the hold"
        )


def begin(audit: AuditLog, champion: str, actor: str, reason: str) -> AuditEntry:
    """The entry of the hold that stands from now on: an earlier one where one stands already.

    `champion` goes on serving.
    """
    with audit.locked() as log:
        return begin_in(log, champion, actor, reason)


def begin_in(log: LockedLog, champion: str, actor: str, reason: str) -> AuditEntry:
    """`begin`, in a log that is locked already."""
    event = AuditEvent(actor=actor, action=Action.HOLD, subject=champion, reason=reason)
    return standing(log.read()) or log.append(event)[0]


def end(audit: AuditLog, champion: str, actor: str, reason: str) -> AuditEntry | None:
    """End the hold that stands, and return the entry that says so; None where none stands."""
    with audit.locked() as log:
        if standing(log.read()) is None:
            return None
        return log.append(AuditEvent(actor=actor, action=Action.RESUMED, subject=champion, reason=reason))[0]
