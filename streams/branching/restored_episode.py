"""The states of one recorded episode, brought back in sandboxes as often as is asked. Branching tries actions there."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, cast

from streams.environments.environment import Observation
from streams.errors import DivergedError, SandboxDiedError, SandboxError, StepTimeoutError
from streams.events import BranchRequest
from streams.sandboxes.pool import SandboxPool, SandboxSession
from streams.sandboxes.protocol import Followed

# A sandbox that dies takes all its sessions with it. More deaths than this in a row are not somebody else's.
_MOST_REOPENINGS = 5

FailureKind: TypeAlias = Literal["timeout", "died"]


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of one action: an observation, or how the sandbox failed on it."""

    action: str
    observation: Observation | None
    failure_kind: FailureKind | None = None


@dataclass(slots=True)
class RestoredEpisode:
    """One episode in a pool. Its states are walked through and compared with the recording once per sandbox process.

    Made by `restored`. One task at a time uses it; others wait.
    """

    request: BranchRequest
    followed: Followed = field(init=False)
    _pool: SandboxPool
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _open: AsyncExitStack = field(default_factory=AsyncExitStack)
    _session: SandboxSession | None = None

    async def branch(self, step: int, actions: Sequence[str]) -> list[Trial]:
        """Take each of `actions` from the state before action number `step`.

        A sandbox that does not survive an action is replaced; the others are not to suffer for it.

        Raises:
            DivergedError: the state cannot be brought back as it was.
            SandboxError: sandboxes die before anything is tried.
        """
        async with self._turn:
            trials: list[Trial] = []
            deaths, alone = 0, False
            while len(trials) < len(actions):
                left = actions[len(trials) :][: 1 if alone else None]
                try:
                    observations = await (await self._running()).branch(step, left)
                except DivergedError:
                    raise
                except StepTimeoutError as error:
                    trials += map(Trial, left, cast(Sequence[Observation], error.before))
                    trials.append(Trial(actions[len(trials)], None, "timeout"))
                except SandboxError as error:
                    # Also an environment that only lost its server is begun again.
                    self._session = None
                    deaths += 1
                    if deaths > _MOST_REOPENINGS:
                        raise
                    # Which of them it died of shows when each is alone; and it may have died of something else.
                    if isinstance(error, SandboxDiedError) and alone:
                        trials.append(Trial(actions[len(trials)], None, "died"))
                        deaths = 0
                    alone = True
                else:
                    trials += map(Trial, left, observations)
                    deaths = 0
            return trials

    async def canonical(self, actions: Sequence[str]) -> tuple[str, ...]:
        """The environment's one spelling of each action."""
        async with self._turn:
            return await (await self._running()).canonical(actions)

    @asynccontextmanager
    async def at(self, step: int) -> AsyncIterator[SandboxSession]:
        """The session in the state before action number `step`, to continue there."""
        async with self._turn:
            session = await self._running()
            await session.restore(step)
            yield session

    async def _running(self) -> SandboxSession:
        """The session, or a new one that has followed the episode too if its process is gone."""
        if self._session is not None and self._session.process.alive:
            return self._session
        await self._open.aclose()
        self._session = None
        session = await self._open.enter_async_context(self._pool.session())
        steps = self.request.steps[:-1]
        self.followed = await session.follow(
            self.request.task,
            [step.action for step in steps],
            [self.request.opening[-1].content, *(step.observation for step in steps)],
        )
        self._session = session
        return session


@asynccontextmanager
async def restored(request: BranchRequest, pool: SandboxPool) -> AsyncIterator[RestoredEpisode]:
    """Open the episode and walk through it. Raises `SandboxError` when its environment does not even begin it."""
    episode = RestoredEpisode(request, pool)
    try:
        await episode._running()
        yield episode
    finally:
        await episode._open.aclose()
