"""One cycle and no more: `ratchet cycle` runs what the learn role would do next, and ends.

A scheduler calls it, such as a CronJob of Kubernetes. It does not practise.
"""

import asyncio
from collections.abc import Sequence

import structlog

from daemon.config import Settings
from daemon.learning.domain import SET, UNSET, is_judged
from daemon.learning.resuming import unfinished
from daemon.learning.role import Learner, open_learners
from daemon.learning.sole import sole_learner
from daemon.learning.tellings import Tellings
from daemon.registry.learner_status import LastCycle, LearnerPhase, LearnerStatus, last_cycle
from ratchet_client.errors import ConfigurationError, RatchetError
from ratchet_client.settings import FrozenModel
from streams.errors import CycleInterruptedError

log = structlog.get_logger()

_POLL_S = 5.0
# In these it is a matter of time until a cycle is due.
_PASSING = (LearnerPhase.PAUSED, LearnerPhase.BRANCHES)


class OneCycle(FrozenModel):
    """The end of a turn of a group: the cycle that ended in it, or None and in `reason` why none was due."""

    group: str
    cycle: LastCycle | None = None
    reason: str = ""


async def run_one(settings: Settings, stop: asyncio.Event) -> tuple[OneCycle, ...]:
    """Run a cycle of each group that one is due of, or finish the one that was broken off.

    A pause after a failure, and branches that a cycle which is due waits for, are waited for. Raises
    `LearnerRunsError` where another learner works in the home, `CycleInterruptedError` when `stop` is set before the
    end, `ConfigurationError` without a domain, and what goes wrong with a cycle, once each group had its turn. What
    serves is then as it was.
    """
    if not is_judged(settings.domain):
        raise ConfigurationError(f"{UNSET}: {SET}")
    with sole_learner(settings.home):
        tellings = Tellings(settings)
        tellings.begin()
        try:
            ended = await _until(stop, settings, tellings)
        except CycleInterruptedError:
            tellings.end("")
            raise
        except Exception as error:
            tellings.end(str(error) or repr(error))
            raise
        tellings.finish()
        return ended


async def _until(stop: asyncio.Event, settings: Settings, tellings: Tellings) -> tuple[OneCycle, ...]:
    turns, stopped = asyncio.create_task(_turns(settings, tellings)), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((turns, stopped), return_when=asyncio.FIRST_COMPLETED)
        if turns.done():
            return await turns
    finally:
        for task in (turns, stopped):
            task.cancel()
        await asyncio.gather(turns, stopped, return_exceptions=True)
    raise CycleInterruptedError("interrupted before the end: the next `ratchet cycle` resumes it")


async def _turns(settings: Settings, tellings: Tellings) -> tuple[OneCycle, ...]:
    async with open_learners(settings, tellings) as learners:
        try:
            return await _each_once(learners)
        finally:
            for learner in learners:
                learner.close()


async def _each_once(learners: Sequence[Learner]) -> tuple[OneCycle, ...]:
    for learner in learners:
        await learner.begin()
    ended, failures = [], []
    for learner in learners:
        try:
            ended.append(await run_turn(learner))
        except RatchetError as error:
            log.error("the cycle failed", group=learner.registry.group, error=str(error))
            learner.tell_failure(error)
            failures.append(error)
    if failures:
        raise failures[0]
    return tuple(ended)


async def run_turn(learner: Learner) -> OneCycle:
    """Run a cycle, or finish the one that was broken off, if that is due. Raises `RatchetError` when a step fails."""
    group, audit = learner.registry.group, learner.registry.audit
    while True:
        await learner.mark_exposed()
        if await learner.resume():
            if unfinished(audit.read()) is None:
                return OneCycle(group=group, cycle=last_cycle(audit.read()))
        elif await learner.is_due():
            await learner.run_cycle()
            return OneCycle(group=group, cycle=last_cycle(audit.read()))
        elif learner.status.phase not in _PASSING:
            return OneCycle(group=group, reason=_why_none(learner.status))
        await asyncio.sleep(_POLL_S)


def _why_none(status: LearnerStatus) -> str:
    if status.phase is LearnerPhase.CANARY:
        return "a canary runs, and what the next candidate has to beat is not known before its end"
    waits = "; a candidate waits for a person" if status.phase is LearnerPhase.APPROVAL else ""
    return f"{status.new} of {status.needed} new trusted episodes{waits}"
