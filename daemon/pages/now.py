"""The first page: what serves and since when, how it does, what the learner is at, and what asks for attention."""

from collections.abc import Sequence

from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request
from starlette.responses import Response

from daemon.console import account_told, drill_told
from daemon.pages.live import progress
from daemon.pages.parts import Parts
from daemon.pages.rendering import page
from daemon.registry.audit import AuditEntry
from daemon.registry.lifecycle import State
from daemon.registry.schemas import StatusReport
from ratchet_client.settings import FrozenModel

_MOST_READ = 500


class Traffic(FrozenModel):
    """Requests of agents since the serve role's start, and those of them that failed, by whose fault."""

    answered: int = 0
    refused: int = 0
    failed: int = 0


async def now(request: Request, parts: Parts) -> Response:
    async with parts.control(request) as control:
        report = await control.status()
        entries = await control.history(_MOST_READ)
        traffic = _traffic(await control.metrics())
    store = report.store
    return page(
        request,
        parts,
        "now.html",
        title="Now",
        report=report,
        since=_since(report.champion, entries),
        served=_success(report),
        traffic=traffic,
        progress=progress(report.learner),
        drill=drill_told(report.drill) if report.drill is not None else "",
        account=account_told(report.holdout) if report.holdout is not None and report.holdout.trials else "",
        practice=store.practice.words() if store is not None else "",
    )


def _since(champion: str, entries: Sequence[AuditEntry]) -> AuditEntry | None:
    """The entry by which the champion came to serve; None where it always did, or too long ago."""
    serving = [
        entry for entry in entries if entry.subject == champion and (entry.state is State.SERVING or entry.replaced)
    ]
    return serving[-1] if serving else None


def _success(report: StatusReport) -> list[dict[str, object]]:
    """How those that served did in production, as far as outcomes judged it; the last first."""
    if report.store is None:
        return []
    return [
        {"served": served, "episodes": counts.episodes, "share": counts.successes / max(1, counts.episodes)}
        for served, counts in report.store.production.items()
    ]


def _traffic(metrics: str) -> Traffic:
    counts = {"answered": 0, "refused": 0, "failed": 0}
    for family in text_string_to_metric_families(metrics):
        if family.name == "ratchet_gateway_requests":
            for sample in family.samples:
                if sample.name.endswith("_total"):
                    status = int(sample.labels["status"])
                    kind = "failed" if status >= 500 else "refused" if status >= 400 else "answered"
                    counts[kind] += int(sample.value)
    return Traffic(**counts)
