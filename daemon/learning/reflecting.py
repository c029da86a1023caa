"""The rationales that a cycle learns from: written before its training, found again when that goes on."""

from pathlib import Path

import structlog

from daemon.learning.loop import Loop
from learners.reflections.records import ReflectionFile, find_reflections, reflections_path
from learners.settings import LearnerSettings, Stage
from learners.snapshots import Snapshot
from streams.environments.harness import ChatHarness
from streams.errors import ControlError

log = structlog.get_logger()


async def reflections_of(
    loop: Loop, settings: LearnerSettings, snapshot: Snapshot, *, write: bool = False
) -> ReflectionFile | None:
    """The rationales of a snapshot, None where no stage learns them.

    Those that are not there are written if `write`, and None otherwise. Raises `TrainingError` when they, or the
    snapshot, cannot be read.
    """
    if not any(map(_learns, settings.stages)):
        return None
    harness = await _harness(loop)
    path = reflections_path(snapshot.folder, settings, loop.base, harness, loop.settings.seed)
    if path.exists():
        return find_reflections(path)
    return await _written(loop, settings, snapshot.folder, harness) if write else None


def with_reflections(settings: LearnerSettings, reflections: ReflectionFile | None) -> LearnerSettings:
    """The stages that have something to learn: without rationales reflection is imitation, which it is mixed with."""
    if reflections is None or reflections.kept:
        return settings
    stages = tuple(
        stage.model_copy(update={"objective": "imitation"}) if _only_reflects(stage) else stage
        for stage in settings.stages
    )
    log.warning("no rationale can be learned: reflection is imitation in this cycle", counts=reflections.counts)
    return settings.model_copy(update={"stages": stages})


def _learns(stage: Stage) -> bool:
    return "reflection" in stage.objectives


def _only_reflects(stage: Stage) -> bool:
    return stage.objective == "reflection" and "imitation" not in stage.objectives


async def _harness(loop: Loop) -> ChatHarness | None:
    return (await loop.pool.describe()).harness if loop.settings.domain.environment else None


async def _written(
    loop: Loop, settings: LearnerSettings, snapshot: Path, harness: ChatHarness | None
) -> ReflectionFile:
    # Whatever asks for a role's name imports this module, and Transformers takes seconds to import.
    from evaluation.reflecting import reflect

    served = ""
    if settings.reflection.writer == "model" and not settings.reflection.url:
        try:
            served = (await loop.served_status()).served or ""
        except ControlError as error:
            log.warning("it is not known what serves: rationales are composed", reason=str(error))
    return await reflect(snapshot, settings, loop.base, harness, loop.settings.seed, loop.policy, served)
