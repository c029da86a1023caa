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
from daemon.learning.reflecting import reflections_of, with_reflections
from daemon.learning.trials import judge
from daemon.registry.lifecycle import State
from daemon.registry.schemas import BASE, CycleReport
from learners.adapters import manifest_of
from learners.canaries import draw_canaries
from learners.reflections.records import ReflectionFile
from learners.settings import LearnerSettings, Progress, TrainingJob
from learners.snapshots import Snapshot, build_snapshot, holdout_id, read_snapshot
from learners.training import interrupted, remove_leftovers, run_training
from streams.errors import TrainingError
from streams.store.queries.retractions import LATEST_RETRACTION
from streams.store.queries.trust import LATEST_WITHDRAWAL

log = structlog.get_logger()


async def run_cycle(loop: Loop, settings: LearnerSettings, watch: Watcher) -> CycleReport:
    """Learn from what the store holds now, and let the candidate serve if it proves better. Returns the report.

    Raises `RatchetError` when a step could not be carried out; what serves is then as it was.
    """
    began = time.monotonic()
    if loop.settings.domain.environment:
        await check_recorded(loop.settings.domain, loop.store)
    snapshot = await stopped_in_training(loop, settings)
    if snapshot is None:
        snapshot = await build_snapshot(
            loop.store,
            loop.settings.holdout,
            loop.settings.home / "snapshots",
            most_per_principal=settings.most_per_principal,
            canaries=draw_canaries(settings.canaries, loop.settings.seed, loop.settings.holdout),
            most_practised_per_task=settings.practice.most_per_task,
        )
    manifest = snapshot.manifest
    log.info("snapshot", id=manifest.snapshot_id, as_of=manifest.as_of, episodes=manifest.episodes)
    candidate = await train_candidate(loop, settings, snapshot, watch)
    loop.registry.enter(candidate, State.TRAINED, ACTOR, f"trained on snapshot {manifest.snapshot_id}")
    return await judge(loop, candidate, watch, began)


async def stopped_in_training(loop: Loop, settings: LearnerSettings) -> Snapshot | None:
    """The snapshot of a training that left a checkpoint, if the same training would begin on it now; else None.

    It would not with other settings, another champion or other held-out tasks, nor where consent was revoked or trust
    was lost since.
    """
    training = loop.settings.home / "training"
    stopped = interrupted(training)
    if not stopped:
        return None
    parent = await _trained_on_from(loop)
    counts = [await loop.store.query(query) for query in (LATEST_RETRACTION, LATEST_WITHDRAWAL)]
    retracted, withdrawn = (int(count["sequence"][0].as_py()) for count in counts)
    for left in stopped:
        try:
            snapshot = read_snapshot(left.snapshot)
        except TrainingError as error:
            log.warning("a training that was stopped cannot go on", job=left.job_id, reason=str(error))
            continue
        manifest = snapshot.manifest
        is_allowed = manifest.retracted_as_of == retracted and withdrawn <= manifest.as_of
        is_allowed = is_allowed and manifest.holdout == holdout_id(loop.settings.holdout)
        if is_allowed and await _would_go_on(loop, settings, snapshot, parent, left):
            log.info("a training that was stopped goes on from its checkpoint", snapshot=manifest.snapshot_id)
            return snapshot
    return None


async def train_candidate(loop: Loop, settings: LearnerSettings, snapshot: Snapshot, watch: Watcher) -> str:
    """Train on from the champion; the digest of the adapter that came of it."""
    parent = await _trained_on_from(loop)
    reflections = await reflections_of(loop, settings, snapshot, write=True)
    job = _job(loop, settings, snapshot, parent, reflections)
    for left in remove_leftovers(loop.settings.home / "training", (job.job_id,)):
        log.info("what a training that did not end left behind is removed", folder=left)
    await run_training(job, lambda progress: watch(Phase.TRAINING, progress.update, progress.updates, _note(progress)))
    candidate = loop.adapters.add(job.output, manifest_of(job, snapshot.manifest, parent))
    shutil.rmtree(job.output)
    return candidate


async def _trained_on_from(loop: Loop) -> str | None:
    """The champion, or its nearest ancestor that is not marked for retraining; None for the base model."""
    provenance = loop.provenance()
    await mark_exposed(loop.store, loop.registry, provenance, ACTOR)
    champion = loop.registry.refs().champion
    ancestor = unmarked_ancestor(loop.registry, provenance, champion)
    if ancestor != champion:
        log.warning("not trained on from the champion: it is to be retrained", champion=champion, parent=ancestor)
    return None if ancestor == BASE else ancestor


async def _would_go_on(
    loop: Loop, settings: LearnerSettings, snapshot: Snapshot, parent: str | None, left: TrainingJob
) -> bool:
    """Return whether a training of this snapshot would be the one that `left` is."""
    try:
        reflections = await reflections_of(loop, settings, snapshot)
    except TrainingError as error:
        log.warning("a training that was stopped cannot go on", job=left.job_id, reason=str(error))
        return False
    return _job(loop, settings, snapshot, parent, reflections).job_id == left.job_id


def _job(
    loop: Loop,
    settings: LearnerSettings,
    snapshot: Snapshot,
    parent: str | None,
    reflections: ReflectionFile | None,
) -> TrainingJob:
    """The job, in a folder of its name: the same one finds its checkpoint there."""
    training = loop.settings.home / "training"
    job = TrainingJob(
        base=loop.base,
        snapshot=snapshot.folder,
        output=training,
        parent=None if parent is None else loop.adapters.folder(parent),
        reflections=None if reflections is None else reflections.path,
        reflections_sha256="" if reflections is None else reflections.sha256,
        settings=with_reflections(_with_stages(settings, snapshot), reflections),
        seed=loop.settings.seed,
    )
    return job.model_copy(update={"output": training / job.job_id})


def _note(progress: Progress) -> Note:
    return Note(
        f"{progress.objective}, loss {progress.loss:.3f}",
        objective=progress.objective,
        loss=progress.loss if math.isfinite(progress.loss) else None,
        memory_bytes=progress.memory_bytes,
        tokens_per_s=progress.tokens_per_s,
        gradient_norm=progress.gradient_norm if math.isfinite(progress.gradient_norm) else None,
    )


def _with_stages(settings: LearnerSettings, snapshot: Snapshot) -> LearnerSettings:
    """The stages that have something to learn from: without a sandbox there are no branches for a world model."""
    if snapshot.manifest.branches:
        return settings
    stages = tuple(stage for stage in settings.stages if stage.objective != "world_model")
    return settings.model_copy(update={"stages": stages or settings.stages})
