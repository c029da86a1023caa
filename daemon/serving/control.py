"""The control API: what serves and why, changes of it, and the figures. The CLI and the learner talk to it.

Who may ask is said in `access.py`. The actor of a change is whose token came.
"""

import asyncio
from typing import Annotated

import structlog
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from daemon.registry import holds
from daemon.registry.audit import AuditEntry
from daemon.registry.canaries import last_canary
from daemon.registry.learner_status import learner_report
from daemon.registry.registry import Registry
from daemon.registry.schemas import (
    CaptureStatus,
    Change,
    CycleReport,
    DecisionRequest,
    Drill,
    DrillRequest,
    HoldRequest,
    PromoteRequest,
    RollbackRequest,
    StatusReport,
)
from daemon.registry.task_uses import readable_summary
from daemon.serving.alias import Alias
from daemon.serving.canary import Canary
from daemon.serving.capture import Capture
from daemon.serving.drill import RollbackDrill, last_drill
from daemon.serving.metrics import Metrics
from daemon.serving.promotion import Promoter
from daemon.serving.replicas import Replica, Replicas
from daemon.serving.store_watch import StoreWatch
from streams.access.access import actor_of
from streams.errors import PolicyError
from streams.runtime.http_bodies import JsonRoute

log = structlog.get_logger()

LAST_CYCLES = 10
# The status of an inference server that hangs is told without its models.
_PATIENCE_S = 2.0


def control_router(
    registry: Registry,
    alias: Alias,
    promoter: Promoter,
    drill: RollbackDrill,
    replicas: Replicas,
    watch: StoreWatch,
    metrics: Metrics,
    bootstrap: str,
    capture: Capture | None = None,
    canary: Canary | None = None,
) -> APIRouter:
    """The routes, over the parts of one serve process. `bootstrap` is the cluster's address."""
    router = APIRouter(route_class=JsonRoute)

    def with_hold(change: Change) -> Change:
        return change.model_copy(update={"on_hold": holds.standing(registry.audit.read()) is not None})

    @router.get("/status")
    async def status() -> StatusReport:
        refs = registry.refs()
        entries = registry.audit.read()
        cycles = [entry.cycle for entry in entries if entry.cycle]
        served_models, store_answers = await asyncio.gather(_served_models(replicas.first), watch.answers())
        return StatusReport(
            alias=alias.name,
            champion=refs.champion,
            previous=refs.previous,
            anchor=refs.anchor,
            served=replicas.first.held.get(alias.served or "", alias.served),
            in_flight=alias.in_flight(alias.served) if alias.served else 0,
            served_models=served_models,
            store=watch.status,
            store_answers=store_answers,
            store_at=watch.at,
            cycles=tuple(cycles[-LAST_CYCLES:]),
            retrain=tuple(sorted(registry.marks())),
            bootstrap=bootstrap,
            capture=capture.status if capture else CaptureStatus(enabled=False),
            holdout=readable_summary(registry),
            held=promoter.held(),
            canary=(canary.report() if canary is not None else None) or last_canary(registry),
            learner=learner_report(registry.home, entries),
            hold=holds.told(entries),
            drill=last_drill(entries),
            replicas=tuple(replica.status() for replica in replicas.all),
        )

    @router.get("/history")
    async def history(limit: Annotated[int, Query(ge=1)] = 100) -> list[AuditEntry]:
        """The newest entries of the audit log, oldest of them first."""
        return registry.audit.read()[-limit:]

    @router.post("/promote")
    async def promote(request: PromoteRequest, http: Request) -> Change:
        return await promoter.promote(
            request.digest, actor_of(http.scope, request.actor), request.reason, at_once=request.at_once
        )

    @router.post("/approve")
    async def approve(request: DecisionRequest, http: Request) -> Change:
        return await promoter.approve(request.digest, actor_of(http.scope, request.actor), request.reason)

    @router.post("/reject")
    async def reject(request: DecisionRequest, http: Request) -> AuditEntry:
        return registry.reject(request.digest, actor_of(http.scope, request.actor), request.reason)

    @router.post("/rollback")
    async def rollback(request: RollbackRequest, http: Request) -> Change:
        change = await promoter.roll_back(request.to, actor_of(http.scope, request.actor), request.reason)
        return with_hold(change)

    @router.post("/drill")
    async def drill_rollback(request: DrillRequest, http: Request) -> Drill:
        """Hold a drill of the rollback now; one that fails says so in its result."""
        return await drill.hold(actor_of(http.scope, request.actor), request.reason)

    @router.post("/restore")
    async def restore(request: DecisionRequest, http: Request) -> Change:
        change = await promoter.restore(request.digest, actor_of(http.scope, request.actor), request.reason)
        return with_hold(change)

    @router.post("/hold")
    async def hold(request: HoldRequest, http: Request) -> AuditEntry:
        """The entry of the hold that stands from now on; an earlier one where one stood already."""
        return holds.begin(
            registry.audit, registry.refs().champion, actor_of(http.scope, request.actor), request.reason
        )

    @router.post("/resume")
    async def resume(request: HoldRequest, http: Request) -> AuditEntry | None:
        """The entry that ends the hold; null where none stood."""
        return holds.end(registry.audit, registry.refs().champion, actor_of(http.scope, request.actor), request.reason)

    @router.post("/cycles")
    async def record_cycle(report: CycleReport, http: Request) -> AuditEntry:
        return registry.record_cycle(report, actor_of(http.scope, "learner"))

    @router.get("/metrics")
    def figures() -> Response:
        return Response(metrics.expose(), media_type="text/plain; version=0.0.4")

    return router


async def _served_models(replica: Replica) -> tuple[str, ...] | None:
    if replica.away:
        return None
    try:
        return tuple(model.name for model in await replica.policy.models(_PATIENCE_S))
    except PolicyError as error:
        log.warning("the inference server did not say what it serves", error=str(error))
        return None
