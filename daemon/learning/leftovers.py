"""What an earlier learner left behind that died, or was stopped. The learn role sees to it before it begins."""

import structlog

from daemon.learning.learned import enter_unrecorded
from daemon.learning.loop import ACTOR, Loop
from daemon.learning.resuming import unfinished
from learners.training import interrupted, remove_leftovers

log = structlog.get_logger()


async def unload_leftovers(loop: Loop) -> None:
    """Unload the candidate that a learner left loaded which died during a gate.

    Raises `PolicyError` where the inference server does not answer.
    """
    given = loop.registry.names_given_by(ACTOR)
    for model in await loop.policy.models():
        if model.name in given:
            await loop.policy.unload_adapter(model.name)


def tidy_up(loop: Loop) -> None:
    """Remove trainings that cannot go on, and enter the adapter of one that ended and was not recorded."""
    home = loop.settings.home
    to_go_on_from = {job.job_id for job in interrupted(home / "training")}
    for left in remove_leftovers(home / "training", to_go_on_from):
        log.info("what a training that did not end left behind is removed", folder=left)
    if unfinished(loop.registry.audit.read()) is None:
        enter_unrecorded(loop.registry, loop.adapters, home / "snapshots", ACTOR)
