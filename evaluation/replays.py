"""Replays actions that were played, in sandbox processes in which nothing was played before, and looks up solutions.

The gate `sentinels` asks whether a win is one again: of all that an episode did to its process, to make it say success,
nothing is left there.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import structlog

from evaluation.rollouts import Rollout
from ratchet_client.events import Task
from ratchet_client.ids import uuid7
from ratchet_client.messages import Messages
from streams.errors import SandboxError
from streams.sandboxes.pool import SandboxPool

log = structlog.get_logger()

_SHARING = 32
_AT_ONCE = 4


async def replayed(
    pool: SandboxPool,
    played: Sequence[tuple[Task, Rollout]],
    alone: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[bool]:
    """Take the actions of each rollout again, and return of each whether they succeed again.

    Each has a fresh process. Where one is costly to start, only the first `alone` do: the others share fresh ones, from
    the last to the first, so that one that only succeeds after what an earlier one did finds that undone. What cannot
    be replayed, tried twice, did not succeed.
    """
    shared = [*reversed(range(alone, len(played)))]
    batches = [[place] for place in range(min(alone, len(played)))]
    batches += [shared[start : start + _SHARING] for start in range(0, len(shared), _SHARING)]
    succeeded: dict[int, bool] = {}
    turns = asyncio.Semaphore(_AT_ONCE)

    async def replay(batch: Sequence[int]) -> None:
        async with turns, _fresh(pool) as group:
            for place in batch:
                succeeded[place] = await _succeeds_again(pool, group, *played[place])
                on_progress(len(succeeded), len(played))

    async with asyncio.TaskGroup() as work:
        for batch in batches:
            work.create_task(replay(batch))
    return [succeeded[place] for place in range(len(played))]


async def known_solutions(pool: SandboxPool, tasks: Sequence[Task]) -> Mapping[str, Messages]:
    """The environment's own solutions by task id, of the tasks that it has one for."""
    solutions: dict[str, Messages] = {}
    if (await pool.describe()).games:
        async with _fresh(pool) as group:
            for start in range(0, len(tasks), _SHARING):
                await _look_up(pool, group, tasks[start : start + _SHARING], solutions)
    return solutions


async def _look_up(pool: SandboxPool, group: str, tasks: Sequence[Task], solutions: dict[str, Messages]) -> None:
    """Add the solutions of `tasks`. One that takes its process with it takes the rest of them too: they are unknown."""
    async with pool.session(group) as session:
        for task in tasks:
            with suppress(SandboxError):
                solution = await session.demonstration(task)
                if solution:
                    solutions[task.task_id] = solution


async def _succeeds_again(pool: SandboxPool, group: str, task: Task, rollout: Rollout) -> bool:
    try:
        return await _replay(pool, group, task, rollout)
    except Exception as error:  # noqa: BLE001 - an environment may be anybody's code
        log.warning("a replay failed and is tried again", task=task.task_id, reason=str(error))
    try:
        async with _fresh(pool) as other:
            return await _replay(pool, other, task, rollout)
    except Exception as error:  # noqa: BLE001 - as above
        log.warning("a success cannot be replayed", task=task.task_id, reason=str(error))
        return False


async def _replay(pool: SandboxPool, group: str, task: Task, rollout: Rollout) -> bool:
    async with pool.fresh_session(group) as session:
        return (await session.replay(task, rollout.actions))[-1].success


@asynccontextmanager
async def _fresh(pool: SandboxPool) -> AsyncIterator[str]:
    """A group of sessions whose processes are new, and end with it."""
    group = f"replay {uuid7()}"
    try:
        yield group
    finally:
        await pool.end_groups(group)
