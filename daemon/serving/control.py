"""The control API: what serves and why, changes of it, and the figures. The CLI and the learner talk to it.

Who may ask is said in `access.py`. The actor of a change is whose token came.
"""

import asyncio
from typing import Annotated

import structlog
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from daemon.registry import holds
from daemon.registry.approval import held
from daemon.registry.audit import AuditEntry
from daemon.registry.canaries import last_canary, running_canary
from daemon.registry.learner_status import learner_report
from daemon.registry.registry import Registry
from daemon.registry.schemas import (
    CaptureStatus,
    Change,
    CycleReport,
    DecisionRequest,
    Drill,
    DrillRequest,
    GroupStatus,
    HoldRequest,
    PromoteRequest,
    RollbackRequest,
    StatusReport,
)
from daemon.registry.task_uses import readable_summary
from daemon.serving.capture import Capture
from daemon.serving.drill import last_drill
from daemon.serving.groups import ServedGroup, ServedGroups
from daemon.serving.metrics import Metrics
from daemon.serving.replicas import Replica, Replicas
from daemon.serving.store_watch import StoreWatch
from streams.access.access import actor_of
from streams.errors import PolicyError
from streams.runtime.http_bodies import JsonRoute

log = structlog.get_logger()

LAST_CYCLES = 10
# The status of an inference server that hangs is told without its models.
_PATIENCE_S = 2.0


GroupParameter = Annotated[str, Query(description="The group that is meant; empty for the default one.")]


def control_router(
    groups: ServedGroups,
    replicas: Replicas,
    watch: StoreWatch,
    metrics: Metrics,
    bootstrap: str,
    capture: Capture | None = None,
) -> APIRouter:
    """The routes, over the parts of one serve process. `bootstrap` is the cluster's address."""
    router = APIRouter(route_class=JsonRoute)

    def with_hold(change: Change, registry: Registry) -> Change:
        return change.model_copy(update={"on_hold": holds.standing(registry.audit.read()) is not None})

    @router.get("/status")
    async def status(group: GroupParameter = "") -> StatusReport:
        asked = groups.named(group)
        registry, alias, canary = asked.registry, asked.alias, asked.canary
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
            held=asked.promoter.held(),
            canary=canary.report() or last_canary(registry),
            learner=learner_report(registry.home, entries),
            hold=holds.told(entries),
            drill=last_drill(entries),
            replicas=tuple(replica.status() for replica in replicas.all),
            group=group,
            is_cold=alias.is_cold,
            groups=tuple(_group_status(each) for each in groups.all.values()) if len(groups.all) > 1 else (),
        )

    @router.get("/history")
    async def history(limit: Annotated[int, Query(ge=1)] = 100, group: GroupParameter = "") -> list[AuditEntry]:
        """The newest entries of the audit log, oldest of them first."""
        return groups.named(group).registry.audit.read()[-limit:]

    @router.post("/load")
    async def load(group: GroupParameter = "") -> None:
        """Have the champion loaded, which may be cold; returns when it is."""
        await groups.named(group).promoter.warm()

    @router.post("/promote")
    async def promote(request: PromoteRequest, http: Request, group: GroupParameter = "") -> Change:
        return await groups.named(group).promoter.promote(
            request.digest, actor_of(http.scope, request.actor), request.reason, at_once=request.at_once
        )

    @router.post("/approve")
    async def approve(request: DecisionRequest, http: Request, group: GroupParameter = "") -> Change:
        promoter = groups.named(group).promoter
        return await promoter.approve(request.digest, actor_of(http.scope, request.actor), request.reason)

    @router.post("/reject")
    async def reject(request: DecisionRequest, http: Request, group: GroupParameter = "") -> AuditEntry:
        registry = groups.named(group).registry
        return registry.reject(request.digest, actor_of(http.scope, request.actor), request.reason)

    @router.post("/rollback")
    async def rollback(request: RollbackRequest, http: Request, group: GroupParameter = "") -> Change:
        asked = groups.named(group)
        change = await asked.promoter.roll_back(request.to, actor_of(http.scope, request.actor), request.reason)
        return with_hold(change, asked.registry)

    @router.post("/drill")
    async def drill_rollback(request: DrillRequest, http: Request, group: GroupParameter = "") -> Drill:
        """Hold a drill of the rollback now; one that fails says so in its result."""
        return await groups.named(group).drill.hold(actor_of(http.scope, request.actor), request.reason)

    @router.post("/restore")
    async def restore(request: DecisionRequest, http: Request, group: GroupParameter = "") -> Change:
        asked = groups.named(group)
        change = await asked.promoter.restore(request.digest, actor_of(http.scope, request.actor), request.reason)
        return with_hold(change, asked.registry)

    @router.post("/hold")
    async def hold(request: HoldRequest, http: Request, group: GroupParameter = "") -> AuditEntry:
        """The entry of the hold that stands from now on; an earlier one where one stood already."""
        registry, actor = groups.named(group).registry, actor_of(http.scope, request.actor)
        return holds.begin(registry.audit, registry.refs().champion, actor, request.reason)

    @router.post("/resume")
    async def resume(request: HoldRequest, http: Request, group: GroupParameter = "") -> AuditEntry | None:
        """The entry that ends the hold; null where none stood."""
        registry, actor = groups.named(group).registry, actor_of(http.scope, request.actor)
        return holds.end(registry.audit, registry.refs().champion, actor, request.reason)

    @router.post("/cycles")
    async def record_cycle(report: CycleReport, http: Request, group: GroupParameter = "") -> AuditEntry:
        return groups.named(group).registry.record_cycle(report, actor_of(http.scope, "learner"))

    @router.get("/metrics")
    def figures() -> Response:
        return Response(metrics.expose(), media_type="text/plain; version=0.0.4")

    return router


def _group_status(group: ServedGroup) -> GroupStatus:
    refs, entries, alias = group.registry.refs(), group.registry.audit.read(), group.alias
    canary = running_canary(group.registry)
    return GroupStatus(
        name=group.name,
        alias=alias.name,
        champion=refs.champion,
        previous=refs.previous,
        anchor=refs.anchor,
        served=alias.served,
        is_cold=alias.is_cold,
        in_flight=alias.in_flight(alias.served) if alias.served else 0,
        held=len(held(entries)),
        canary=None if canary is None else canary.adapter,
        on_hold=holds.standing(entries) is not None,
        learner=learner_report(group.registry.home, entries),
    )


async def _served_models(replica: Replica) -> tuple[str, ...] | None:
    if replica.away:
        return None
    try:
        return tuple(model.name for model in await replica.policy.models(_PATIENCE_S))
    except PolicyError as error:
        log.warning("the inference server did not say what it serves", error=str(error))
        return None
