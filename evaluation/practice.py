"""Plays groups of episodes for practice, and tells each as the events that an agent would have published of it."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import structlog

from evaluation.episode import Player, Turn
from evaluation.second_attempts import Adviser, as_played
from learners.trajectories import Trajectory
from ratchet_client.events import Actor, Advice, OutcomeEvent, StepEvent, Task
from ratchet_client.messages import Message
from streams.errors import PolicyError, SandboxError
from streams.sandboxes.pool import SandboxPool
from streams.trust.practice import AGENT, PRINCIPAL, VERIFIER

log = structlog.get_logger()

_GROUP = "practice"


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

    attempt: Trajectory
    events: tuple[StepEvent | OutcomeEvent, ...]


@dataclass(slots=True)
class Round:
    """One round of practice: `samples` episodes of each task, task by task, so that groups come whole.

    `may_begin` is waited for before each episode; False ends the round. `keep` is given each episode as it ends. Of the
    groups with a failure, the share `second_attempts` is followed up by an attempt with advice, which is kept if it
    succeeds. Episodes are recorded as those of `agent`. `steps` is how many were taken, `advised` how many groups were
    followed up and `helped` with success, `failures` why episodes could not be played.
    """

    player: Player
    pool: SandboxPool
    budget: Budget
    may_begin: Callable[[], Awaitable[bool]]
    keep: Callable[[Practised], Awaitable[None]]
    second_attempts: float = 0.0
    agent: str = AGENT
    steps: int = 0
    episodes: int = 0
    successes: int = 0
    advised: int = 0
    helped: int = 0
    failures: list[str] = field(default_factory=list)
    _groups: dict[str, list[Trajectory]] = field(default_factory=lambda: defaultdict(list), init=False)
    _failed_groups: int = field(default=0, init=False)

    async def play(self, tasks: Sequence[Task], samples: int) -> None:
        """Play until nothing is left of the tasks or of the budget. An episode that cannot be played is left out.

        Raises the error of one where none can be played, and what `keep` and `may_begin` raise.
        """
        waiting = iter([task for task in tasks for _ in range(samples)])
        try:
            async with asyncio.timeout(self.budget.seconds), asyncio.TaskGroup() as workers:
                for _ in range(self.budget.concurrency):
                    workers.create_task(self._work(waiting, samples))
        except TimeoutError:
            log.info("a round of practice is out of time", seconds=self.budget.seconds, episodes=self.episodes)
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        finally:
            await self.pool.end_groups(_GROUP)

    async def _work(self, waiting: Iterator[Task], samples: int) -> None:
        while True:
            if not await self.may_begin() or (task := next(waiting, None)) is None or self._is_spent():
                return
            try:
                await self._attempt(task)
                if len(self._groups[task.task_id]) == samples and self._is_to_be_followed_up(task):
                    if not await self.may_begin():
                        return
                    await self._follow_up(task)
            except (PolicyError, SandboxError) as error:
                log.warning("a practice episode could not be played", task=task.task_id, reason=str(error))
                self.failures.append(str(error) or type(error).__name__)
                # Nothing works: that says nothing about any of the tasks.
                if not self.episodes and len(self.failures) >= self.budget.concurrency:
                    raise

    async def _attempt(self, task: Task) -> None:
        turns: list[Turn] = []

        def told(turn: Turn) -> None:
            self._count(turn)
            turns.append(turn)

        async with self.pool.fresh_session(_GROUP) as session:
            rollout = await self.player.play(session, task, told)
        attempt = as_played(task, self.player.model, turns, rollout)
        await self.keep(Practised(attempt, as_events(task, attempt, agent=self.agent)))
        self._groups[task.task_id].append(attempt)
        self.episodes += 1
        self.successes += attempt.success

    async def _follow_up(self, task: Task) -> None:
        self.advised += 1
        async with self.pool.fresh_session(_GROUP) as session:
            adviser = Adviser(self.player, on_turn=self._count)
            found = await adviser.follow_up(session, task, self._groups[task.task_id])
        if found is not None:
            await self.keep(Practised(found.attempt, as_events(task, found.attempt, found.advice, self.agent)))
            self.helped += 1

    def _is_to_be_followed_up(self, task: Task) -> bool:
        """Return whether the group failed at times, is of the share that is followed up, and there is budget left."""
        if self._is_spent() or all(attempt.success for attempt in self._groups[task.task_id]):
            return False
        self._failed_groups += 1
        # The first group is of any share, so a round of few tasks is followed up, too.
        return self.advised < self._failed_groups * self.second_attempts

    def _is_spent(self) -> bool:
        return self.steps >= self.budget.steps

    def _count(self, turn: Turn) -> None:
        self.steps += 1


def as_events(
    task: Task, attempt: Trajectory, advice: Advice | None = None, agent: str = AGENT
) -> tuple[StepEvent | OutcomeEvent, ...]:
    """The steps and the outcome of an episode that was played for practice; none of one without a step.

    `advice` was in its prompt, which its opening has without it.
    """
    if not attempt.steps:
        return ()
    events: list[StepEvent | OutcomeEvent] = []
    messages: list[Message] = [*attempt.opening]
    for number, step in enumerate(attempt.steps):
        sampled = attempt.log_probabilities[number] if attempt.log_probabilities else ()
        events.append(
            StepEvent(
                episode_id=attempt.episode_id,
                step=number,
                agent=agent,
                principal=PRINCIPAL,
                task=task,
                tools=attempt.tools(number),
                messages=tuple(messages),
                action=step.action,
                observation=step.observation,
                done=number == len(attempt.steps) - 1,
                actor=Actor(kind="policy", adapter=attempt.adapter),
                origin="practice",
                log_probabilities=sampled,
                advice=advice,
            )
        )
        messages += (step.sent_back, *step.observation)
    outcome = OutcomeEvent(
        episode_id=attempt.episode_id,
        verifier=VERIFIER,
        success=attempt.success,
        score=attempt.score,
        origin="practice",
    )
    return (*events, outcome)
