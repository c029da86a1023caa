"""One cycle of the loop: snapshot, training, trial and, if the candidate won, promotion.

The learn role runs it whenever enough was learned about; the demo runs it step by step. Nothing here touches what
serves but the request to promote, which the serve role carries out.
"""

import asyncio
import math
import shutil
import time

import structlog

from daemon.learning.domain import (
    check_recorded,
)
from daemon.learning.forgetting import mark_exposed, unmarked_ancestor
from daemon.learning.learnable import learnable_stages
from daemon.learning.loop import ACTOR, Loop, Note, Phase, Watcher
from daemon.learning.reflecting import reflections_of, with_reflections
from daemon.learning.trials import judge
from daemon.registry.lifecycle import State
from daemon.registry.schemas import BASE, CycleReport
from learners.adapters import manifest_of
from learners.base_model import base_digest
from learners.base_samples import base_samples
from learners.canaries import draw_canaries
from learners.reflections.records import ReflectionFile, with_rationales
from learners.settings import LearnerSettings, Progress, TrainingJob
from learners.snapshots import Snapshot, build_snapshot, holdout_id, read_snapshot, read_trajectories
from learners.stored_rows import NOTHING_OLDER, Older
from learners.training import interrupted, remove_leftovers, run_training
from learners.trajectories import Trajectory
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
        snapshot = await new_snapshot(loop, settings)
    manifest = snapshot.manifest
    log.info("snapshot", id=manifest.snapshot_id, as_of=manifest.as_of, episodes=manifest.episodes)
    candidate = await train_candidate(loop, settings, snapshot, watch)
    loop.registry.enter(candidate, State.TRAINED, ACTOR, f"trained on snapshot {manifest.snapshot_id}")
    return await judge(loop, candidate, watch, began)


async def new_snapshot(loop: Loop, settings: LearnerSettings) -> Snapshot:
    """The snapshot of what the store holds now, with what is to be replayed beside what is new."""
    replay, holdout = settings.replay, loop.settings.holdout
    older, samples = NOTHING_OLDER, tuple[Trajectory, ...]()
    if replay.enabled:
        parent = await _trained_on_from(loop)
        line = () if parent is None else loop.provenance().lineage(parent)
        learned = frozenset[str]().union(*(ancestor.episodes or () for ancestor in line))
        older = Older(learned, replay.most if replay.share else 0)
        if replay.base_prompts is not None and replay.base_share:
            digest = await asyncio.to_thread(base_digest, loop.base)
            home = loop.settings.home / "base_samples"
            samples = await base_samples(replay.base_prompts, loop.policy, BASE, digest, home, holdout)
    return await build_snapshot(
        loop.store,
        holdout,
        loop.settings.home / "snapshots",
        most_per_principal=settings.most_per_principal,
        canaries=draw_canaries(settings.canaries, loop.settings.seed, holdout),
        most_practised_per_task=settings.practice.most_per_task,
        older=older,
        base_samples=samples,
        members=loop.members,
    )


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
            manifest = snapshot.manifest
            is_allowed = manifest.retracted_as_of == retracted and withdrawn <= manifest.as_of
            if not is_allowed or manifest.holdout != holdout_id(loop.settings.holdout):
                continue
            reflections = await reflections_of(loop, settings, snapshot)
            job = await _job(loop, settings, snapshot, parent, reflections)
        except TrainingError as error:
            log.warning("a training that was stopped cannot go on", job=left.job_id, reason=str(error))
            continue
        if job.job_id == left.job_id:
            log.info("a training that was stopped goes on from its checkpoint", snapshot=manifest.snapshot_id)
            return snapshot
    return None


async def train_candidate(loop: Loop, settings: LearnerSettings, snapshot: Snapshot, watch: Watcher) -> str:
    """Train on from the champion; the digest of the adapter that came of it."""
    parent = await _trained_on_from(loop)
    reflections = await reflections_of(loop, settings, snapshot, write=True)
    job = await _job(loop, settings, snapshot, parent, reflections)
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


async def _job(
    loop: Loop,
    settings: LearnerSettings,
    snapshot: Snapshot,
    parent: str | None,
    reflections: ReflectionFile | None,
) -> TrainingJob:
    """The job, in a folder of its name: the same one finds its checkpoint there.

    Raises `TrainingError` when none of the stages has anything to learn from.
    """
    trajectories = await asyncio.to_thread(read_trajectories, snapshot.folder)
    if reflections is not None:
        trajectories = with_rationales(trajectories, reflections.reflections)
    stages = with_reflections(settings, reflections).stages
    stages = await asyncio.to_thread(learnable_stages, stages, trajectories)
    training = loop.settings.home / "training"
    job = TrainingJob(
        base=loop.base,
        snapshot=snapshot.folder,
        output=training,
        parent=None if parent is None else loop.adapters.folder(parent),
        reflections=None if reflections is None else reflections.path,
        reflections_sha256="" if reflections is None else reflections.sha256,
        settings=settings.model_copy(update={"stages": stages}),
        seed=loop.settings.seed,
    )
    return job.model_copy(update={"output": training / job.job_id})


def _note(progress: Progress) -> Note:
    losses = {name: loss for name, loss in progress.losses.items() if math.isfinite(loss)}
    told = ", ".join(f"{name} {loss:.3f}" for name, loss in progress.losses.items())
    return Note(
        f"losses: {told}" if len(progress.losses) > 1 else f"{progress.objective}, loss {progress.loss:.3f}",
        objective=progress.objective,
        loss=progress.loss if math.isfinite(progress.loss) else None,
        losses=losses,
        memory_bytes=progress.memory_bytes,
        tokens_per_s=progress.tokens_per_s,
        gradient_norm=progress.gradient_norm if math.isfinite(progress.gradient_norm) else None,
    )
