"""The part of the contract that is about restoring recorded states; `conformance.py` asks it of what it played.

Every function raises `BrokenPromiseError` with what it saw.
"""

import random
from collections.abc import Sequence

from ratchet_client.messages import assistant
from streams.environments.environment import Restore
from streams.errors import BrokenPromiseError, DivergedError
from streams.sandboxes.pool import SandboxPool, SandboxSession
from streams.sandboxes.walks import NOT_AN_ACTION, Walk, compare, falsified, path, shown, spelled


async def restores(
    pool: SandboxPool, walks: Sequence[Walk], generator: random.Random, way: Restore, number: int
) -> str:
    """Bring back `number` states by `way`."""
    restored = 0
    while restored < number:
        for walk in walks:
            most = min(number - restored, walk.states)
            async with pool.session() as session:
                await _follow(session, walk, way)
                for _ in range(most):
                    await _restore(session, walk, way, generator.randrange(walk.states))
            restored += most
    return f"{restored} states brought back, 0 mismatches"


async def _restore(session: SandboxSession, walk: Walk, way: Restore, step: int) -> None:
    where = f"{path(walk.task, walk.actions[:step])}; restored by {way}"
    try:
        await session.restore(step)
    except DivergedError as error:
        raise BrokenPromiseError(str(error), where) from error
    compare(walk.fingerprints[step], await session.fingerprint(), f"{where}, the fingerprint")
    # From there it must go on as it did.
    for number in range(step, min(step + 2, len(walk.actions))):
        where += f", then {spelled(walk.actions[number])}"
        compare(walk.shown[number + 1], shown(await session.step(walk.actions[number])), where)


async def branches(pool: SandboxPool, walks: Sequence[Walk], generator: random.Random) -> str:
    """Try all actions of a walk from one of its states, in two orders."""
    tried = 0
    for walk in walks:
        async with pool.session() as session:
            await _follow(session, walk)
            step = generator.randrange(walk.states)
            actions = [*dict.fromkeys(walk.actions), assistant(NOT_AN_ACTION)]
            forwards = [shown(answer) for answer in await session.branch(step, actions)]
            backwards = [shown(answer) for answer in await session.branch(step, actions[::-1])][::-1]
        where = path(walk.task, walk.actions[:step])
        for action, one, other in zip(actions, forwards, backwards, strict=True):
            compare(one, other, f"{where}; branched to {spelled(action)} in two orders of branches")
        tried += len(actions)
    return f"{tried} branches in both orders"


async def divergence(pool: SandboxPool, walks: Sequence[Walk], generator: random.Random) -> str:
    """Restore recordings that are false at one observation."""
    for walk in walks:
        step = generator.randrange(walk.states)
        wrong = [*walk.messages[:step], falsified(walk.messages[step]), *walk.messages[step + 1 :]]
        async with pool.session() as session:
            followed = await session.follow(walk.task, walk.actions, wrong)
        if not followed.divergence or len(followed.states) != step:
            raise BrokenPromiseError(
                followed.divergence or "no divergence",
                f"{path(walk.task, walk.actions[:step])}; its last observation falsified",
            )
    return f"{len(walks)} of {len(walks)} wrong recordings"


async def _follow(session: SandboxSession, walk: Walk, way: Restore | None = None) -> None:
    followed = await session.follow(walk.task, walk.actions, walk.messages, way)
    if followed.divergence:
        raise BrokenPromiseError(
            f"after {len(followed.states)} of {walk.states} observations: {followed.divergence}",
            f"{path(walk.task, walk.actions)} (played once more)",
        )
