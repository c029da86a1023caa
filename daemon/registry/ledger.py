"""The account of alpha: each gate's probability of a wrong promotion is in the audit log before the gate is played.

The learner reserves; nothing gives back. The procedures are in `evaluation/spending.py`.
"""

from collections.abc import Sequence

from daemon.registry.audit import Action, AuditEntry, AuditEvent, AuditLog
from daemon.registry.lifecycle import State
from daemon.registry.schemas import Reservation
from evaluation.settings import GateSettings
from evaluation.spending import SpentAlpha, lord

_UNDECIDED = (None, State.TRAINED, State.EVALUATING)
_PROMOTED = (State.APPROVED, State.SERVING)


def reserve(audit: AuditLog, candidate: str, champion: str, actor: str, settings: GateSettings) -> Reservation:
    """The alpha for the gate of `candidate` against `champion`, on disk when this returns.

    A gate that a crash interrupted is resumed with what was reserved for it. One that ended, or was played against
    another champion, has spent its alpha, and so has one that was reserved for and never played.
    """
    with audit.locked() as log:
        entries = log.read()
        own = _own(entries, candidate)
        open_ = own[0].reserved if own and all(entry.state in _UNDECIDED for entry in own) else None
        if open_ is not None and open_.champion == champion:
            return open_
        reservations = [entry.reserved for entry in entries if entry.reserved is not None]
        alpha = settings.alpha if settings.spending == "constant" else lord(history(entries), settings.alpha)
        reserved = Reservation(gate=len(reservations) + 1, champion=champion, alpha=alpha, spending=settings.spending)
        reason = f"gate {reserved.gate} may promote wrongly with probability {alpha:.3g} ({settings.spending})"
        log.append(AuditEvent(actor=actor, action=Action.RESERVED, subject=candidate, reason=reason, reserved=reserved))
        return reserved


def history(entries: Sequence[AuditEntry]) -> list[SpentAlpha]:
    """The gates that alpha was reserved for by LORD++, oldest first.

    A candidate that a person approved later counts as promoted from then on.
    """
    return [
        SpentAlpha(entry.reserved.alpha, _is_promoted(entries[place + 1 :], entry.subject))
        for place, entry in enumerate(entries)
        if entry.reserved is not None and entry.reserved.spending == "lord"
    ]


def _own(entries: Sequence[AuditEntry], candidate: str) -> Sequence[AuditEntry]:
    """The entries on `candidate` from its last reservation on; none without one."""
    own = [entry for entry in entries if entry.subject == candidate]
    last = max((place for place, entry in enumerate(own) if entry.reserved is not None), default=len(own))
    return own[last:]


def _is_promoted(later: Sequence[AuditEntry], candidate: str) -> bool:
    """Return whether `later` entries promote `candidate` before its next reservation."""
    for entry in later:
        if entry.subject == candidate and entry.reserved is not None:
            return False
        if entry.subject == candidate and entry.state in _PROMOTED:
            return True
    return False
