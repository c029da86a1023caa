"""Carrying out an erasure, from the request to the report. The record role does it before it opens the store.

What is removed is decided on and written down first; each step after that may be killed and done again.
"""

import shutil
from pathlib import Path

import structlog

from daemon.erasure.files import files_with, snapshots_of, trainings_on
from daemon.erasure.request import (
    ErasurePlan,
    ErasureReport,
    ErasureRequest,
    finish,
    is_asked_for,
    keep_plan,
    kept_plan,
    pending,
)
from daemon.registry.erasing import in_use, record_erasure
from daemon.registry.maintenance import maintenance
from daemon.registry.registry import Registry
from daemon.registry.schemas import Erasure
from learners.adapters import AdapterStore
from learners.provenance import Provenance
from ratchet_client.crash_points import CrashPoint, reach
from ratchet_client.syncing import sync_folder
from streams.store.backends import erasure_of
from streams.store.rewriting import StoreErased
from streams.store.settings import StoreSettings
from streams.trust.groups import FOLDER, homes_in

log = structlog.get_logger()

REASON = "it was trained on data that is erased"
# Their names are digests, and say nothing of the data.
_BY_DIGEST = ("adapters/", "snapshots/", "trials/", "training/")


def carry_out(home: Path, store: StoreSettings) -> ErasureReport | None:
    """Carry out the erasure that was asked for, if one was; nothing may have the store's file open.

    Other writers of a lake go on. Raises `ErasureError` or `StoreError`. Then, and after a kill, the next call goes on
    with it.
    """
    if not is_asked_for(home):
        return None
    with maintenance(home):
        request = pending(home)
        if request is None:  # another record role of this home, of several over a lake, has done it
            return None
        plan = _erase_from_store(home, store, request) or kept_plan(home, request) or _plan(home, request, None)
        reach(CrashPoint.ERASURE_STEP_BEFORE)
        erasure = _erasure(plan)
        for one in homes_in(home):
            own = _erasure_in(one, plan, home)
            if one == home or own.paths:
                record_erasure(Registry(one), own, request.actor, REASON)
        for path in plan.paths:
            reach(CrashPoint.ERASURE_STEP_BEFORE)
            _remove(home / path)
        report = ErasureReport(erasure=erasure, in_use=plan.in_use, retained=plan.store.retained)
        reach(CrashPoint.ERASURE_STEP_BEFORE)
        finish(home, request, report)
    log.warning("erased", erasure=request.erasure_id, rows=sum(erasure.rows.values()), adapters=len(erasure.adapters))
    return report


def exposed_adapters(home: Path, principal: str | None, trajectories: tuple[str, ...]) -> tuple[str, ...]:
    """The adapters that learned from the principal or one of the trajectories, or may have."""
    provenance = Provenance(AdapterStore(home / "adapters"), home / "snapshots")
    found = {exposure.adapter for exposure in (provenance.exposed(principal) if principal is not None else ())}
    of_episodes = provenance.exposed_to(dict.fromkeys(trajectories, "erased"))
    return tuple(sorted(found | {exposure.adapter for _, exposure in of_episodes}))


def _erase_from_store(home: Path, store: StoreSettings, request: ErasureRequest) -> ErasurePlan | None:
    """Erase from the store what it still has; returns the plan of it, None where that was done before."""
    plan, erasure = None, erasure_of(store)
    if erasure is None:
        return None
    if not erasure.is_done(request.erasure_id):
        with erasure.erasing(request) as told:
            plan = _plan(home, request, told)
    erasure.clean_up()
    return plan


def _plan(home: Path, request: ErasureRequest, told: StoreErased | None) -> ErasurePlan:
    """Decide what is removed from the home, and write that down; `told` is what the store had of it."""
    told = told or StoreErased(rows={}, episodes=request.episodes, recoveries=(), retained=())
    trajectories = (*told.episodes, *told.recoveries)
    removed, kept, paths = list[str](), list[str](), list[Path]()
    for one in homes_in(home):
        exposed = exposed_adapters(one, request.principal, trajectories)
        used = in_use(Registry(one), exposed)
        gone = [adapter for adapter in exposed if adapter not in used]
        snapshots = snapshots_of(one, request.principal, trajectories)
        trials = [path for adapter in exposed for path in sorted((one / "trials").glob(f"{adapter}-*"))]
        found = [*(one / "adapters" / adapter for adapter in gone), *snapshots, *trainings_on(one, snapshots), *trials]
        known = set(found)
        others = files_with(one, request.principal, trajectories)
        paths += [*found, *(path for path in others if not known & set(path.parents))]
        removed, kept = removed + gone, kept + list(used)
    plan = ErasurePlan(
        erasure_id=request.erasure_id,
        store=told,
        adapters=tuple(removed),
        in_use=tuple(kept),
        paths=tuple(dict.fromkeys(str(path.relative_to(home)) for path in paths)),
    )
    keep_plan(home, plan)
    return plan


def _erasure(plan: ErasurePlan) -> Erasure:
    named = tuple(path for path in plan.paths if _of_group(path).startswith(_BY_DIGEST))
    return Erasure(
        erasure_id=plan.erasure_id,
        rows=plan.store.rows,
        adapters=plan.adapters,
        paths=named,
        others=len(plan.paths) - len(named),
    )


def _of_group(path: str) -> str:
    """A path below the home, as it is below the group's own."""
    parts = Path(path).parts
    return "/".join(parts[2:] if parts[0] == FOLDER else parts)


def _erasure_in(one: Path, plan: ErasurePlan, home: Path) -> Erasure:
    """The part of an erasure of `home` that is of one group's files, or of the default group's."""
    inside = {path: (home / path).relative_to(one) for path in plan.paths if (home / path).is_relative_to(one)}
    paths = [str(path) for path in inside.values() if one != home or path.parts[0] != FOLDER]
    own = plan.model_copy(
        update={
            "paths": tuple(paths),
            "adapters": tuple(adapter for adapter in plan.adapters if f"adapters/{adapter}" in paths),
        }
    )
    return _erasure(own)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if path.parent.is_dir():
        sync_folder(path.parent)
