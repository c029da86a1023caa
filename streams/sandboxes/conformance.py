"""Conformance suite of environments: `ratchet environment check NAME` runs this suite.

Everything is asked of real sandbox processes, as branching asks it. Each check says what it saw, and in numbers where
it repeats something; a broken promise comes with the first example of it and the actions that led there.
"""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from ratchet_client.events import Task
from ratchet_client.messages import Message, assistant
from streams.environments.environment import Network, Restore
from streams.errors import BrokenPromiseError, SandboxError, StepTimeoutError
from streams.sandboxes import promises, restore_conformance, task_conformance, tool_conformance
from streams.sandboxes.pool import SandboxPool, SandboxSession
from streams.sandboxes.promises import NO_ACTIONS, Check, NotTried, Promise
from streams.sandboxes.protocol import Description
from streams.sandboxes.walks import NOT_AN_ACTION, Walk, answered, compare, compare_each, path, shown, spelled, wander

_NONSENSE = ("", NOT_AN_ACTION, "[{", "\x00", "a" * 10_000)
_NOT_PLAYED = NotTried(f"no task could be played: {promises.PLAYING.name!r} says why")
_ONE_SANDBOX = "One session is enough for branching.sandboxes = 1, the default."
_NOT_DETERMINISTIC = NotTried(
    "it is not declared deterministic", "Declare it, if it is so: states can then be restored by replay."
)
_NOT_RESTORED = NotTried("no way of restoring is declared", "Declare one: without it nothing can be branched.")

_Ask: TypeAlias = Callable[[], Awaitable[str | NotTried]]


@dataclass(slots=True)
class Suite:
    """The checks, in order, on one environment whose `tasks` may be played.

    `restores` is how many states each declared way is made to bring back. `plans` are actions to play, by the task's
    id, for tasks whose demonstrations the environment does not know.
    """

    pool: SandboxPool
    description: Description
    tasks: Sequence[Task]
    restores: int
    generator: random.Random
    length: int = 12
    plans: Mapping[str, Sequence[Message]] = field(default_factory=dict)
    _walks: list[Walk] = field(default_factory=list)

    async def run(self, on_progress: Callable[[str, int, int], None]) -> list[Check]:
        """All checks. `on_progress` is told the name of each as it begins, its number, and how many there are."""
        played: list[tuple[Promise, _Ask]] = [
            (promises.DETERMINISM, self._determinism),
            (promises.FINGERPRINTS, self._fingerprints),
            *((promises.restoring_by(way), self._restores_by(way)) for way in self._ways),
            (promises.BRANCHES, self._branches),
            (promises.SESSIONS, self._sessions),
            (promises.DIVERGENCE, self._divergence),
            (promises.DEFINITIONS, self._definitions),
            (promises.ANSWERS, self._answers),
            (promises.IMPOSSIBLE_CALLS, self._impossible_calls),
            (promises.TIMEOUTS, self._timeouts),
        ]
        checks: list[tuple[Promise, _Ask]] = [
            (promises.CAPABILITIES, self._capabilities),
            (promises.PLAYING, self._play),
            *((promise, self._of_trajectories(check)) for promise, check in played),
            (promises.NOT_AN_ACTION, self._nonsense),
            (promises.REFUSALS, self._refusals),
        ]
        if self.description.games:
            checks.append((promises.DEMONSTRATIONS, self._demonstrations))
        if self.description.generates_tasks:
            checks.append((promises.GENERATED_TASKS, self._generated_tasks))
        done = []
        for number, (promise, check) in enumerate(checks):
            on_progress(promise.name, number, len(checks))
            try:
                done.append(promise.found(await check()))
            except SandboxError as error:
                done.append(promise.found(error))
        return done

    @property
    def played(self) -> dict[str, tuple[str, ...]]:
        """The actions of each task, as they were played."""
        return {walk.task.task_id: tuple(map(spelled, walk.actions)) for walk in self._walks}

    @property
    def _ways(self) -> tuple[Restore, ...]:
        return self.description.capabilities.restores

    async def _capabilities(self) -> str:
        offered = self.description.capabilities
        if offered.side_effects:
            raise BrokenPromiseError("it has side effects: what it does may hurt somebody, so it is not a sandbox")
        if Restore.SNAPSHOT in self._ways and not self.description.takes_snapshots:
            raise BrokenPromiseError("it declares snapshots and has no snapshot() and restore()")
        if Restore.REPLAY in self._ways and not offered.deterministic:
            raise BrokenPromiseError("it declares replay and says that it is not deterministic")
        if Restore.FORK in self._ways and offered.network is not Network.NONE:
            raise BrokenPromiseError("it declares fork and needs a network: a connection does not survive a fork")
        return f"restores by {', '.join(self._ways) or 'nothing'}; network {offered.network}"

    async def _play(self) -> str | NotTried:
        """Play a walk for each task: its plan or else its demonstration, with steps aside."""
        failed: SandboxError | None = None
        for task in self.tasks:
            try:
                self._walks.append(await self._walk(task))
            except SandboxError as error:
                failed = failed or error
        if failed:
            raise failed
        return self._of_actions(f"{sum(len(walk.actions) for walk in self._walks)} actions of {len(self._walks)} tasks")

    async def _walk(self, task: Task) -> Walk:
        async with self.pool.session() as session:
            plan = self.plans.get(task.task_id)
            if plan is None:
                plan = await session.demonstration(task) if self.description.games else ()
            return await wander(session, task, plan, self.length, self.generator)

    def _of_trajectories(self, check: _Ask) -> _Ask:
        """The same check, which is not tried where no task could be played."""

        async def ask() -> str | NotTried:
            return await check() if self._walks else _NOT_PLAYED

        return ask

    async def _determinism(self) -> str | NotTried:
        if not self._deterministic:
            return _NOT_DETERMINISTIC
        for walk in self._walks:
            async with self._elsewhere() as session:
                observations = [await session.reset(walk.task)]
                fingerprints = [await session.fingerprint()]
                for action in walk.actions:
                    observations.append(await session.step(action))
                    fingerprints.append(await session.fingerprint())
            compare_each(walk.shown, list(map(shown, observations)), walk.task, walk.actions, "played twice")
            compare_each(walk.fingerprints, fingerprints, walk.task, walk.actions, "fingerprints, played twice")
        return self._of_actions(f"{sum(walk.states for walk in self._walks)} states of {len(self._walks)} trajectories")

    async def _fingerprints(self) -> str | NotTried:
        different = 0
        for walk in self._walks:
            known: dict[str, str] = {}
            for text, fingerprint in zip(walk.shown, walk.fingerprints, strict=True):
                known.setdefault(fingerprint, text)
            different += len(known)
            if len(known) == 1 and len(set(walk.shown)) > 2:
                seen = f"it never changed, and these were shown: {walk.shown}"[:1000]
                raise BrokenPromiseError(seen, path(walk.task, walk.actions))
        if not self.description.capabilities.complete_fingerprint:
            return self._of_actions(f"{different} different ones")
        idle = 0
        for walk in self._walks:
            idle += await self._without_idle_steps(walk)
        return self._of_actions(f"{different} different ones; {idle} steps that left them as they were changed nothing")

    async def _without_idle_steps(self, walk: Walk) -> int:
        """Play a walk without the steps that left the fingerprint as it was; all others must show what they showed."""
        busy = [
            number for number in range(len(walk.actions)) if walk.fingerprints[number] != walk.fingerprints[number + 1]
        ]
        async with self.pool.session() as session:
            played = await session.replay(walk.task, [walk.actions[number] for number in busy])
        compare_each(
            [walk.shown[0], *(walk.shown[number + 1] for number in busy)],
            list(map(shown, played)),
            walk.task,
            [walk.actions[number] for number in busy],
            f"without the {len(walk.actions) - len(busy)} steps that leave the fingerprint",
        )
        return len(walk.actions) - len(busy)

    def _restores_by(self, way: Restore) -> _Ask:
        async def check() -> str | NotTried:
            seen = await restore_conformance.restores(self.pool, self._walks, self.generator, way, self.restores)
            return self._of_actions(seen)

        return check

    async def _generated_tasks(self) -> str | NotTried:
        return await task_conformance.generated_tasks(self.pool, self.description.games, self.tasks)

    async def _branches(self) -> str | NotTried:
        if not self._ways:
            return _NOT_RESTORED
        return self._of_actions(await restore_conformance.branches(self.pool, self._walks, self.generator))

    async def _divergence(self) -> str | NotTried:
        if not self._ways:
            return _NOT_RESTORED
        return await restore_conformance.divergence(self.pool, self._walks, self.generator)

    async def _sessions(self) -> str | NotTried:
        if not self._deterministic:
            return _NOT_DETERMINISTIC
        most = 2 if self._remote else 4  # servers may hold few
        walks = [*self._walks, *self._walks][: max(2, min(most, len(self._walks)))]
        if self._remote and (refused := await self._second_refused()):
            return refused
        async with self._together(len(walks)) as sessions:
            seen = [[shown(await session.reset(walk.task))] for session, walk in zip(sessions, walks, strict=True)]
            for number in range(self.length):
                for session, walk, so_far in zip(sessions, walks, seen, strict=True):
                    if number < len(walk.actions):
                        so_far.append(shown(await session.step(walk.actions[number])))
        for walk, so_far in zip(walks, seen, strict=True):
            compare_each(walk.shown, so_far, walk.task, walk.actions, "played beside others")
        return self._of_actions(f"{len(walks)} sessions in turns")

    async def _nonsense(self) -> str:
        async with self.pool.session() as session:
            await session.reset(self.tasks[0])
            for text in _NONSENSE:
                await answered(session, assistant(text), path(self.tasks[0], [assistant(text)]))
        return f"{len(_NONSENSE)} answers"

    async def _definitions(self) -> str | NotTried:
        return tool_conformance.definitions(self._walks, self.description.harness)

    async def _answers(self) -> str | NotTried:
        return await tool_conformance.answers(self.pool, self._walks)

    async def _impossible_calls(self) -> str | NotTried:
        return await tool_conformance.impossible_calls(self.pool, self._walks[0])

    async def _refusals(self) -> str | NotTried:
        return await task_conformance.refusals(self.pool, self.description, self.tasks[0])

    async def _timeouts(self) -> str:
        async with self.pool.session() as session:
            session.step_timeout_s = 1e-6
            try:
                await session.reset(self.tasks[0])
            except StepTimeoutError:
                pass
            else:
                raise BrokenPromiseError("a reset that takes no time at all was answered")
        walk = self._walks[0]
        async with self.pool.session() as session:
            first = shown(await session.reset(walk.task))
        if self._deterministic:
            compare(walk.shown[0], first, f"{path(walk.task, ())}, after a time-out")
        return "the process was replaced"

    async def _demonstrations(self) -> str:
        return await task_conformance.demonstrations(self.pool, self.tasks)

    def _of_actions(self, seen: str) -> str | NotTried:
        """What was seen, unless no walk has any actions: then it says little."""
        return seen if any(walk.actions for walk in self._walks) else NO_ACTIONS

    @property
    def _deterministic(self) -> bool:
        return self.description.capabilities.deterministic

    @property
    def _remote(self) -> bool:
        return self.description.capabilities.network is Network.REMOTE

    async def _second_refused(self) -> NotTried | None:
        """Servers may hold a single session; that is enough for a single sandbox."""
        async with self.pool.session():
            try:
                async with self.pool.session():
                    return None
            except SandboxError as error:
                return NotTried(f"a second session cannot be opened: {error}", _ONE_SANDBOX)

    @asynccontextmanager
    async def _elsewhere(self) -> AsyncIterator[SandboxSession]:
        """A session in another process than the one in which the trajectories were played alone."""
        if self._remote:  # its processes are all of one server
            async with self.pool.session() as session:
                yield session
        else:
            async with self._together(2) as (_, session):
                yield session

    @asynccontextmanager
    async def _together(self, number: int) -> AsyncIterator[list[SandboxSession]]:
        if number == 0:
            yield []
            return
        async with self.pool.session() as session, self._together(number - 1) as others:
            yield [session, *others]
