"""Plays tasks with a served model in sandboxes. Gates play through this, and so does whatever measures an adapter.

The tasks of a chunk are played in lockstep: the requests of one turn are sent at once and awaited together. The server
batches that best, and what is batched with what depends on the tasks and not on timing.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import structlog

from evaluation.rollouts import Rollout
from evaluation.settings import RolloutSettings
from streams.environments.environment import Observation
from streams.environments.harness import ChatHarness
from streams.errors import ContextLengthError
from streams.events import Task
from streams.messages import Message, Messages, Tools
from streams.policy.client import PolicyClient
from streams.sandboxes.pool import SandboxPool, SandboxSession

log = structlog.get_logger()


@dataclass(slots=True)
class _Episode:
    task: Task
    session: SandboxSession
    messages: Messages
    last: Observation
    tools: Tools = ()
    actions: list[Message] = field(default_factory=list)
    invalid_actions: int = 0
    is_full: bool = False

    def rollout(self) -> Rollout:
        return Rollout(
            task_id=self.task.task_id,
            success=self.last.success,
            score=self.last.score,
            steps=len(self.actions),
            invalid_actions=self.invalid_actions,
            actions=tuple(self.actions),
            messages=self.messages,
        )


@dataclass(frozen=True, slots=True)
class Arena:
    """Where tasks are played: models of `policy` act in sandboxes of `pool`, through `harness`, each side alike.

    `before_play` is told the tasks before any of them is begun: they are used up from then on, whatever happens.
    """

    policy: PolicyClient
    pool: SandboxPool
    harness: ChatHarness
    settings: RolloutSettings
    before_play: Callable[[Sequence[Task]], None] = field(default=lambda tasks: None, kw_only=True)

    async def play(
        self, tasks: Sequence[Task], model: str, on_progress: Callable[[int, int], None] | None = None
    ) -> list[Rollout]:
        """Play each task once with the served `model`; the rollouts come in the order of `tasks`.

        An episode that grows longer than the server takes ends there, as one in production would; one that the server
        has no room for at all is an error.

        `on_progress` is told the episodes finished so far and the episodes in all. Raises `PolicyError` and
        `SandboxError`: a task that could not be played to its end has no rollout, and neither has the list it is in.
        """
        self.before_play(tasks)
        rollouts: list[Rollout] = []
        for start in range(0, len(tasks), self.settings.concurrency):
            chunk = tasks[start : start + self.settings.concurrency]

            def report(finished: int, before: int = start) -> None:
                if on_progress is not None:
                    on_progress(before + finished, len(tasks))

            rollouts += await self._play_chunk(chunk, model, report)
        return rollouts

    async def _play_chunk(self, tasks: Sequence[Task], model: str, report: Callable[[int], None]) -> list[Rollout]:
        async with AsyncExitStack() as sessions:
            episodes = []
            for task in tasks:
                session = await sessions.enter_async_context(self.pool.session())
                first = await session.reset(task)
                episodes.append(_Episode(task, session, self.harness.opening(first.messages), first, first.tools or ()))
            live = episodes
            for _ in range(self.harness.max_steps):
                await asyncio.gather(*(self._take_turn(episode, model) for episode in live))
                live = [
                    episode
                    for episode in live
                    if not (episode.last.done or episode.is_full or self.harness.gives_up(episode.messages))
                ]
                report(len(episodes) - len(live))
                if not live:
                    break
        report(len(episodes))
        return [episode.rollout() for episode in episodes]

    async def _take_turn(self, episode: _Episode, model: str) -> None:
        sampling = self.settings.sampling.within(self.harness.max_tokens, self.harness.stop)
        try:
            (reply,) = await self.policy.chat(model, episode.messages, sampling, tools=episode.tools)
        except ContextLengthError as error:
            if not episode.actions:
                raise
            log.warning("an episode has no room left", model=model, task=episode.task.task_id, reason=str(error))
            episode.is_full = True
            return
        action = self.harness.parse(reply.message)
        episode.last = await episode.session.step(action)
        episode.actions.append(action)
        episode.invalid_actions += not episode.last.understood
        episode.messages = self.harness.extend(episode.messages, action, episode.last.messages)
        if episode.last.tools is not None:
            episode.tools = episode.last.tools
