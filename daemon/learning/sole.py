"""The lock that lets one learner work in a home: two would learn from the same, and use held-out tasks up twice.

The learn role waits for its turn, `ratchet cycle` does not.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import structlog

from daemon.registry.learner_status import LEARNER_LOCK
from streams.errors import LearnerRunsError
from streams.runtime.sole_holder import sole_holder

log = structlog.get_logger()

_LOOK_EVERY_S = 1.0


@contextmanager
def sole_learner(home: Path) -> Iterator[None]:
    """Keep other learners from `home` meanwhile.

    Raises `LearnerRunsError`, which names the other's process id and machine, where one works there.
    """

    def refusal(other: str) -> LearnerRunsError:
        return LearnerRunsError(
            f"another learner works in {home}, with the process id {other}: wait for its end, or stop it"
        )

    with sole_holder(home / LEARNER_LOCK, f"{os.getpid()} on {os.uname().nodename}", refusal):
        yield


@asynccontextmanager
async def learner_in_turn(home: Path, stop: asyncio.Event) -> AsyncIterator[bool]:
    """As `sole_learner`, once no other learner works in `home`; yields False where `stop` is set before."""
    waits = False
    with ExitStack() as stack:
        while not stop.is_set():
            try:
                stack.enter_context(sole_learner(home))
            except LearnerRunsError as error:
                if not waits:
                    log.warning("the learner waits for its turn", reason=str(error))
                waits = True
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _LOOK_EVERY_S)
            else:
                break
        yield not stop.is_set()
