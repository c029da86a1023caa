"""One cycle of the loop: snapshot, training, trial and, if the candidate won, promotion.

The learn role runs it whenever enough was learned about; the demo runs it step by step. Nothing here touches what
serves but the request to promote, which the serve role carries out.
"""

import math
import shutil
import time

import structlog

from daemon.learning.domain import (
    check_recorded,
)
from daemon.learning.forgetting import mark_exposed, unmarked_ancestor
from daemon.learning.loop import ACTOR, Loop, Note, Phase, Watcher
from daemon.learning.trials import judge
from daemon.registry.lifecycle import State
from daemon.registry.schemas import BASE, CycleReport
from learners.adapters import manifest_of
from learners.canaries import draw_canaries
from learners.settings import LearnerSettings, Progress, TrainingJob
from learners.snapshots import Snapshot, build_snapshot
from learners.training import remove_leftovers, run_training
from streams.ids import uuid7

log = structlog.get_logger()


async def run_cycle(loop: Loop, settings: LearnerSettings, watch: Watcher) -> CycleReport:
    """Learn from what the store holds now, and let the candidate serve if it proves better. Returns the report.

    Raises `RatchetError` when a step could not be carried out; what serves is then as it was.
    """
    began = time.monotonic()
    if loop.settings.domain.environment:
        await check_recorded(loop.settings.domain, loop.store)
    snapshot = await build_snapshot(
        loop.store,
        loop.settings.holdout,
        loop.settings.home / "snapshots",
        most_per_principal=settings.most_per_principal,
        canaries=draw_canaries(settings.canaries, loop.settings.seed, loop.settings.holdout),
    )
    manifest = snapshot.manifest
    log.info("snapshot", id=manifest.snapshot_id, as_of=manifest.as_of, episodes=manifest.episodes)
    candidate = await train_candidate(loop, settings, snapshot, watch)
    loop.registry.enter(candidate, State.TRAINED, ACTOR, f"trained on snapshot {manifest.snapshot_id}")
    return await judge(loop, candidate, watch, began)


async def train_candidate(loop: Loop, settings: LearnerSettings, snapshot: Snapshot, watch: Watcher) -> str:
    """Train on from the champion; the digest of the adapter that came of it.

    A champion that is marked for retraining is passed over for its nearest ancestor that is not.
    """
    provenance = loop.provenance()
    await mark_exposed(loop.store, loop.registry, provenance, ACTOR)
    champion = loop.registry.refs().champion
    ancestor = unmarked_ancestor(loop.registry, provenance, champion)
    if ancestor != champion:
        log.warning("not trained on from the champion: it is to be retrained", champion=champion, parent=ancestor)
    parent = None if ancestor == BASE else ancestor
    for left in remove_leftovers(loop.settings.home / "training"):
        log.info("what a training that did not end left behind is removed", folder=left)
    job = TrainingJob(
        base=loop.base,
        snapshot=snapshot.folder,
        output=loop.settings.home / "training" / uuid7(),
        parent=None if parent is None else loop.adapters.folder(parent),
        settings=_with_stages(settings, snapshot),
        seed=loop.settings.seed,
    )
    await run_training(job, lambda progress: watch(Phase.TRAINING, progress.update, progress.updates, _note(progress)))
    candidate = loop.adapters.add(job.output, manifest_of(job, snapshot.manifest, parent))
    shutil.rmtree(job.output)
    return candidate


def _note(progress: Progress) -> Note:
    return Note(
        f"{progress.objective}, loss {progress.loss:.3f}",
        objective=progress.objective,
        loss=progress.loss if math.isfinite(progress.loss) else None,
        memory_bytes=progress.memory_bytes,
    )


def _with_stages(settings: LearnerSettings, snapshot: Snapshot) -> LearnerSettings:
    """The stages that have something to learn from: without a sandbox there are no branches for a world model."""
    if snapshot.manifest.branches:
        return settings
    stages = tuple(stage for stage in settings.stages if stage.objective != "world_model")
    return settings.model_copy(update={"stages": stages or settings.stages})
