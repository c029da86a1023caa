"""Plays groups of episodes for practice, and tells each as the events that an agent would have published of it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import structlog

from evaluation.episode import Player, Turn
from evaluation.rollouts import Rollout
from streams.errors import PolicyError, SandboxError
from streams.events import Actor, OutcomeEvent, StepEvent, Task
from streams.ids import uuid7
from streams.sandboxes.pool import SandboxPool
from streams.trust.practice import AGENT, PRINCIPAL, VERIFIER

log = structlog.get_logger()

GROUP = "practice"


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that a round may take: seconds, after which what is under way is dropped, and steps, after which no
    episode begins.
    """

    seconds: float
    steps: int
    concurrency: int


@dataclass(frozen=True, slots=True)
class Practised:
    """An episode that was played to its end, and its events."""

    rollout: Rollout
    events: tuple[StepEvent | OutcomeEvent, ...]


@dataclass(slots=True)
class Round:
    """One round of practice: `samples` episodes of each task, task by task, so that groups come whole.

    `may_begin` is waited for before each episode, and `keep` is given each as it ends. `steps` is how many were taken,
    `failures` why episodes could not be played.
    """

    player: Player
    pool: SandboxPool
    budget: Budget
    may_begin: Callable[[], Awaitable[None]]
    keep: Callable[[Practised], Awaitable[None]]
    steps: int = 0
    episodes: int = 0
    successes: int = 0
    failures: list[str] = field(default_factory=list)

    async def play(self, tasks: Sequence[Task], samples: int) -> None:
        """Play until nothing is left of the tasks or of the budget. An episode that cannot be played is left out.

        Raises the error of one where none can be played, and what `keep` and `may_begin` raise.
        """
        waiting = iter([task for task in tasks for _ in range(samples)])
        try:
            async with asyncio.timeout(self.budget.seconds), asyncio.TaskGroup() as workers:
                for _ in range(self.budget.concurrency):
                    workers.create_task(self._work(waiting))
        except TimeoutError:
            log.info("a round of practice is out of time", seconds=self.budget.seconds, episodes=self.episodes)
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        finally:
            await self.pool.end_groups(GROUP)

    async def _work(self, waiting: Iterator[Task]) -> None:
        while True:
            await self.may_begin()
            task = next(waiting, None)
            if task is None or self.steps >= self.budget.steps:
                return
            try:
                practised = await self._episode(task)
            except (PolicyError, SandboxError) as error:
                log.warning("a practice episode could not be played", task=task.task_id, reason=str(error))
                self.failures.append(str(error) or type(error).__name__)
                # Nothing works: that says nothing about any of the tasks.
                if not self.episodes and len(self.failures) >= self.budget.concurrency:
                    raise
                continue
            await self.keep(practised)
            self.episodes += 1
            self.successes += practised.rollout.success

    async def _episode(self, task: Task) -> Practised:
        turns: list[Turn] = []

        def told(turn: Turn) -> None:
            self.steps += 1
            turns.append(turn)

        async with self.pool.session(GROUP) as session:
            rollout = await self.player.play(session, task, told)
        return Practised(rollout, as_events(task, self.player.model, turns, rollout))


def as_events(task: Task, model: str, turns: Sequence[Turn], rollout: Rollout) -> tuple[StepEvent | OutcomeEvent, ...]:
    """The steps and the outcome of an episode that `model` played for practice; none of one without a step."""
    if not turns:
        return ()
    episode = uuid7()
    steps = [
        StepEvent(
            episode_id=episode,
            step=number,
            agent=AGENT,
            principal=PRINCIPAL,
            task=task,
            tools=turn.tools,
            messages=turn.messages,
            action=turn.action,
            observation=turn.observation,
            done=number == len(turns) - 1,
            actor=Actor(kind="policy", adapter=model),
            origin="practice",
            log_probabilities=turn.log_probabilities,
        )
        for number, turn in enumerate(turns)
    ]
    outcome = OutcomeEvent(
        episode_id=episode, verifier=VERIFIER, success=rollout.success, score=rollout.score, origin="practice"
    )
    return (*steps, outcome)
