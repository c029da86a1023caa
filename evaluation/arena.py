"""Plays tasks with a served model in sandboxes. Gates play through this, and so does whatever measures an adapter.

So many episodes as are set are always under way: when one ends, the next task is reset while the others go on, so that
the server's batch stays full. Each episode has a sandbox process of its own or, where one is costly to start, one that
only this side of this gate plays in: nothing that was done elsewhere judges it.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import structlog
from pydantic import TypeAdapter

from evaluation.episode import Player
from evaluation.rollout_log import Entry, Key, RolloutLog
from evaluation.rollouts import Account, Exclusion, Played, Rollout
from evaluation.settings import RolloutSettings
from ratchet_client.events import Task
from ratchet_client.ids import content_id, uuid7
from streams.environments.harness import ChatHarness
from streams.errors import ContextLengthError, PolicyError, SandboxGoneError
from streams.policy.client import PolicyClient
from streams.sandboxes.pool import SandboxPool

log = structlog.get_logger()

# A process that dies takes all its sessions with it. Those that did not kill it are begun again, at most so often.
_MOST_RESTARTS = 5
_HARNESS = TypeAdapter(ChatHarness)


@dataclass(frozen=True)
class Arena:
    """Play of tasks: models of `policy` act in sandboxes of `pool`, through `harness`, each side alike.

    Rollouts are kept in `record` under the name of the `gate`, and of the adapter that a served name stands for in
    `adapters`. `account` counts what was played for this gate; `able` are the models that played a task to its end.
    `before_play` is told the tasks before any of them is begun: they are used up from then on, whatever happens.
    """

    policy: PolicyClient
    pool: SandboxPool
    harness: ChatHarness
    settings: RolloutSettings
    gate: str = ""
    record: RolloutLog | None = None
    adapters: Mapping[str, str] = field(default_factory=dict)
    account: Account = field(default_factory=Account)
    able: set[str] = field(default_factory=set)
    before_play: Callable[[Sequence[Task]], None] = field(default=lambda tasks: None, kw_only=True)

    def for_gate(self, gate: str, adapters: Mapping[str, str]) -> Self:
        """The same arena as the gate of that name plays in it, with an account of its own."""
        return replace(self, gate=gate, adapters=adapters, account=Account())

    async def play(
        self, tasks: Sequence[Task], model: str, on_progress: Callable[[int, int], None] | None = None
    ) -> Played:
        """Play each task once with the served `model`; the rollouts come in the order of `tasks`.

        What the record has of this gate is not played again. A task that fails is tried once more, in a process where
        nothing else runs; then it is excluded with the reason, which is never a failed episode. An episode that grows
        longer than the server takes ends there, as one in production would.

        `on_progress` is told the tasks finished so far and the tasks in all. Raises `PolicyError` when the server is
        down or does not have the model, the error of a task when no model could ever play a single one, `GateError`
        when the record cannot be written, and what `before_play` raises. That is an `outage` in the account: it says
        nothing about the model.
        """
        (played,) = await self.play_together(tasks, (model,), on_progress)
        return played

    async def play_together(
        self, tasks: Sequence[Task], models: Sequence[str], on_progress: Callable[[int, int], None] | None = None
    ) -> list[Played]:
        """Play each task once with each of the served `models`, all of them at the same time, as `play` does with one.

        None waits for the last episodes of another, and what else the machine does meanwhile meets all alike. The
        result has the order of `models`; `on_progress` is told the episodes finished and in all.
        """
        report = on_progress or (lambda done, total: None)
        sides: list[_Side] = []
        share = max(1, self.settings.concurrency // len(models))
        sides += (_Side(self, model, tasks, sides, share) for model in models)

        def told() -> None:
            report(sum(side.finished for side in sides), len(tasks) * len(sides))

        try:
            self.before_play(tasks)
            async with asyncio.TaskGroup() as playing:
                for side in sides:
                    playing.create_task(side.play(told))
            for side in sides:
                side.record_exclusions()
        except ExceptionGroup as failed:
            self.account.outage = failed.exceptions[0]
            raise failed.exceptions[0] from failed
        except Exception as error:
            self.account.outage = error
            raise
        finally:
            await self.pool.end_groups(*(side.group for side in sides))
        played = [side.played() for side in sides]
        for each in played:
            self.account.add(each)
        return played

    @cached_property
    def conditions(self) -> str:
        """A hash of all that a rollout depends on besides its task and the adapter."""
        sampling = self.settings.sampling.model_dump_json()
        return content_id(self.pool.environment, _HARNESS.dump_json(self.harness).decode(), sampling)


class _Side:
    """One model on one list of tasks; `sides` are all that play it at the same time, this one too."""

    def __init__(
        self, arena: Arena, model: str, tasks: Sequence[Task], sides: Sequence["_Side"], concurrency: int
    ) -> None:
        self._arena = arena
        self._sides = sides
        self._most = concurrency
        self._model = model
        self._tasks = tasks
        self.group = f"{model} {uuid7()}"
        self._keys = [self._key(task) for task in tasks]
        self._player = Player(arena.policy, model, arena.harness, arena.settings.sampling)
        self._outcomes: dict[int, Rollout | Exclusion] = {}
        self._failure: Exception | None = None
        # Whatever a task does to its process, when it is tried again it does that to nothing else.
        self._retrying = asyncio.Lock()

    @property
    def finished(self) -> int:
        return len(self._outcomes)

    def played(self) -> Played:
        """The outcomes in the order of the tasks."""
        ordered = [self._outcomes[number] for number in sorted(self._outcomes)]
        return Played(
            tuple(outcome for outcome in ordered if isinstance(outcome, Rollout)),
            tuple(outcome for outcome in ordered if isinstance(outcome, Exclusion)),
        )

    async def play(self, told: Callable[[], None]) -> None:
        left = iter(range(len(self._tasks)))
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(self._most, len(self._tasks))):
                    workers.create_task(self._work(left, told))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed

    async def _work(self, left: Iterator[int], told: Callable[[], None]) -> None:
        for number in left:
            self._outcomes[number] = await self._outcome(self._tasks[number], self._keys[number])
            told()
            # Nothing works, for anybody: that says nothing about any of the tasks.
            enough = len(self._outcomes) in (len(self._tasks), self._most)
            if enough and self._failure and not self._arena.able and all(side._failure for side in self._sides):
                raise self._failure

    def _key(self, task: Task) -> Key | None:
        arena = self._arena
        if arena.record is None:
            return None
        return arena.record.next_key(arena.gate, arena.adapters.get(self._model, self._model), task, arena.conditions)

    async def _outcome(self, task: Task, key: Key | None) -> Rollout | Exclusion:
        """The outcome that the record has, or else that of playing the task; a rollout is recorded at once."""
        record = self._arena.record
        known = record.find(key) if record and key else None
        outcome = known.outcome if known else await self._tried(task)
        if isinstance(outcome, Rollout):
            self._arena.able.add(self._model)
            if record and key and not known:
                record.append(Entry.of(key, self._model, outcome))
        return outcome

    def record_exclusions(self) -> None:
        """Only when all sides have ended is it known that it was for these tasks alone that they failed."""
        for number, outcome in self._outcomes.items():
            key, record = self._keys[number], self._arena.record
            if isinstance(outcome, Exclusion) and record and key and not record.find(key):
                record.append(Entry.of(key, self._model, outcome))

    async def _tried(self, task: Task) -> Rollout | Exclusion:
        for _ in range(_MOST_RESTARTS):
            try:
                return await self._attempt(task, self.group)
            except SandboxGoneError:
                continue
            except Exception as error:  # noqa: BLE001 - an environment and a server may be anybody's code
                log.warning("an episode failed and is tried again", model=self._model, **_about(task, error))
                break
        async with self._retrying:
            try:
                return await self._attempt(task)
            except Exception as error:  # noqa: BLE001 - as above
                log.warning("a task is excluded", model=self._model, **_about(task, error))
                if isinstance(error, PolicyError) and not isinstance(error, ContextLengthError):
                    await self._check_served(error)
                self._failure = error
                return Exclusion(task, _about(task, error)["reason"])

    async def _attempt(self, task: Task, or_group: str | None = None) -> Rollout:
        async with self._arena.pool.fresh_session(or_group) as session:
            return await self._player.play(session, task)

    async def _check_served(self, error: PolicyError) -> None:
        """Raise `error`, or that of asking, when the server is down or has no such model."""
        if self._model not in {served.name for served in await self._arena.policy.models()}:
            raise error


def _about(task: Task, error: Exception) -> dict[str, str]:
    # Half of a surrogate pair, which no file can hold, may come with any text.
    reason = str(error).encode(errors="backslashreplace").decode()
    return {"task": task.task_id, "reason": reason or type(error).__name__}
