"""The part of the contract that is about tasks: refused, demonstrated and generated ones; `conformance.py` asks it.

Every function raises `BrokenPromiseError` with what it saw.
"""

from collections.abc import Sequence

from ratchet_client.events import Task
from streams.errors import BrokenPromiseError, SandboxError
from streams.sandboxes.pool import SandboxPool, SandboxSession
from streams.sandboxes.promises import NotTried
from streams.sandboxes.protocol import Description
from streams.sandboxes.tool_conformance import check_own_ids
from streams.sandboxes.walks import compare, path, shown

_UNKNOWN_TASK = "\u2014 no task of any environment \u2014"
_RESERVED_FOLD = "test"
_GENERATED = 4


async def refusals(pool: SandboxPool, description: Description, task: Task) -> str | NotTried:
    """An unknown task, which an environment without task lists need not know, a second reset and the reserved fold."""
    async with pool.session() as session:
        refused = [await _refuses(session, Task(environment=pool.environment, task_id=_UNKNOWN_TASK)) for _ in "ab"]
        first = await session.reset(task)
        again = await session.reset(task)
        if description.capabilities.deterministic:
            compare(shown(first), shown(again), f"{path(task, ())}, and reset again")
        if not description.games:
            if all(refused):
                return "an unknown task"
            return NotTried("it lists no tasks and begins unknown ones: only their first observations tell tasks apart")
        if not all(refused):
            raise BrokenPromiseError("it began the task", f"reset to the task {_UNKNOWN_TASK!r}", "An error.")
        try:
            await session.tasks(description.games[0], _RESERVED_FOLD)
        except SandboxError:
            return "an unknown task and the reserved fold"
    raise BrokenPromiseError("its tasks", f"the tasks of the fold {_RESERVED_FOLD!r}, which is reserved", "An error.")


async def _refuses(session: SandboxSession, task: Task) -> bool:
    try:
        await session.reset(task)
    except SandboxError:
        return True
    return False


async def demonstrations(pool: SandboxPool, tasks: Sequence[Task]) -> str:
    """The demonstration of each task, and its success."""
    for task in tasks:
        async with pool.session() as session:
            actions = await session.demonstration(task)
            last = (await session.replay(task, actions))[-1]
        for action in actions:
            check_own_ids(action)
        if not last.success:
            said = f"the last answer is {last.text[:200]!r}" if last.text else "its check does not find it solved"
            raise BrokenPromiseError(
                f"no success after {len(actions)} actions, with the score {last.score:g}: {said}", path(task, actions)
            )
    return f"{len(tasks)} tasks"


async def generated_tasks(pool: SandboxPool, games: Sequence[str], listed: Sequence[Task]) -> str | NotTried:
    """Ask twice, in two processes and another cut, and begin some."""
    made: list[Task] = []
    for game in games:
        for fold in ("train", "dev"):
            async with pool.session() as one, pool.session() as other:
                try:
                    first = await one.generate(game, fold, 0, _GENERATED)
                    again = await other.generate(game, fold, 1, _GENERATED)
                except SandboxError:
                    continue  # the game has no such fold
            if first[1:] != again[: len(first) - 1]:
                raise BrokenPromiseError(
                    f"{again[:2]}", f"the generated tasks of {game!r} from number 1 on", f"as before: {first[1:3]}"
                )
            made += first
    if doubled := {task.task_id for task in listed}.intersection(task.task_id for task in made):
        raise BrokenPromiseError(f"it generates a task that it lists: {sorted(doubled)[0]!r}")
    for task in made[:2]:
        async with pool.session() as session:
            begun = shown(await session.reset(task))
            compare(begun, shown(await session.reset(task)), f"{path(task, ())}, and reset again")
    return f"{len(made)} tasks" if made else NotTried("it generates none")
