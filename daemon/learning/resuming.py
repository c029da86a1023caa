"""Finds what a learner left unfinished when it died in a trial, and finishes it: nothing is played or told twice.

The audit log says how far it came; the record of rollouts (`evaluation/rollout_log.py`) says what was played.
"""

import time
from collections.abc import Sequence

from daemon.learning.loop import ACTOR, Loop, Watcher
from daemon.learning.trials import announce, judge
from daemon.registry.audit import Action, AuditEntry
from daemon.registry.lifecycle import State
from daemon.registry.schemas import CycleReport
from evaluation.report import GateReport
from streams.errors import GateError

_OPEN = (State.TRAINED, State.EVALUATING)
_CLOSED = (State.APPROVED, State.REJECTED, State.INCONCLUSIVE, State.HELD)
_ANSWERS = (Action.PROMOTED, Action.PROMOTION_FAILED, Action.ROLLED_BACK)


def unfinished(entries: Sequence[AuditEntry]) -> AuditEntry | None:
    """The entry that gave the learner's newest candidate its state, if that is not the end of its cycle; else None.

    It is the end when there is a verdict, the cycle is recorded, and an approved candidate was promoted or could not
    be. What a person decided is not the learner's to finish. Older candidates are not looked at: the newest one learned
    from what they did.
    """
    candidate = next((each.subject for each in reversed(entries) if _is_trained(each)), None)
    states = [entry for entry in entries if entry.subject == candidate and entry.state is not None]
    if not states or states[-1].state in _OPEN:
        return states[-1] if states else None
    verdict = states[-1]
    if verdict.state not in _CLOSED or verdict.actor != ACTOR:
        return None
    later = [entry for entry in entries if entry.sequence > verdict.sequence]
    if not any(entry.action is Action.CYCLE and entry.subject == candidate for entry in later):
        return verdict
    is_answered = verdict.state is not State.APPROVED or any(entry.action in _ANSWERS for entry in later)
    return None if is_answered else verdict


async def resume(loop: Loop, left: AuditEntry, watch: Watcher) -> CycleReport:
    """Finish the cycle that stopped after the entry `left`. Raises `RatchetError` when a step cannot be carried out."""
    began = time.monotonic()
    if left.state in _OPEN:
        return await judge(loop, left.subject, watch, began)
    report = GateReport.read(loop.adapters.folder(left.subject))
    if report is None:
        raise GateError(
            f"the cycle of {left.subject[:12]} cannot be finished: its gate report is missing. Its verdict stands in "
            "`ratchet history`."
        )
    return await announce(loop, left, report, began)


def _is_trained(entry: AuditEntry) -> bool:
    return entry.state is State.TRAINED and entry.actor == ACTOR
