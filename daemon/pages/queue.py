"""The page of decisions: candidates that wait for a person, the hold, the rollback, and what was decided last."""

from collections.abc import Mapping, Sequence

from starlette.requests import Request
from starlette.responses import Response

from daemon.pages.parts import Parts
from daemon.pages.rendering import page
from daemon.registry.audit import Action, AuditEntry
from daemon.registry.lifecycle import State
from daemon.registry.refs import states_of
from daemon.registry.schemas import BASE

_DONE = {
    "approve": "Approved. The candidate serves, or answers a share of the episodes in a canary.",
    "reject": "Rejected. The candidate will not serve.",
    "restore": "Restored. What was rolled back serves again.",
    "rollback": "Rolled back. Nothing is promoted by itself until the hold is ended.",
    "hold": "On hold. What passes its gates waits for a person; what serves goes on.",
    "resume": "The hold is ended. Promotion is automatic again.",
}
_DECISIONS = frozenset(
    {Action.PROMOTED, Action.PROMOTION_FAILED, Action.ROLLED_BACK, Action.RESTORED, Action.HOLD, Action.RESUMED}
)
_MOST_READ = 500
_MOST_SHOWN = 10


async def queue(request: Request, parts: Parts) -> Response:
    return await queue_page(request, parts, done=_DONE.get(request.query_params.get("done", ""), ""))


async def queue_page(
    request: Request,
    parts: Parts,
    status: int = 200,
    done: str = "",
    error: str = "",
    tried: Mapping[str, str] | None = None,
) -> Response:
    """The page, with what was `done` or the `error` of what was tried: the form then keeps what was written in it."""
    async with parts.control(request) as control:
        report = await control.status()
        entries = await control.history(_MOST_READ)
    taken_back = [adapter for adapter, state in states_of(entries).items() if state is State.ROLLED_BACK]
    return page(
        request,
        parts,
        "queue.html",
        status,
        title="Decisions",
        report=report,
        targets=_targets(report.champion, report.previous, entries),
        taken_back=taken_back[::-1][:_MOST_SHOWN],
        decided=[entry for entry in reversed(entries) if _is_decision(entry)][:_MOST_SHOWN],
        done=done,
        error=error,
        tried=tried or {},
    )


def _targets(champion: str, previous: str, entries: Sequence[AuditEntry]) -> list[str]:
    """What a rollback may go to, what served last first."""
    retired = [adapter for adapter, state in states_of(entries).items() if state is State.RETIRED]
    return [each for each in dict.fromkeys((previous, *reversed(retired), BASE)) if each != champion]


def _is_decision(entry: AuditEntry) -> bool:
    return entry.action in _DECISIONS or entry.state in (State.REJECTED, State.HELD, State.APPROVED)
