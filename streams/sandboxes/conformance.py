"""Conformance suite of environments: `ratchet environment check NAME` runs this suite.

Everything is asked of real sandbox processes, as branching asks it. Each check says what it saw, and in numbers where
it repeats something; a broken promise comes with the first example of it.
"""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from ratchet_client.events import Task
from ratchet_client.messages import assistant
from ratchet_client.settings import FrozenModel
from streams.environments.environment import Network, Restore
from streams.errors import BrokenPromiseError, SandboxError, StepTimeoutError
from streams.sandboxes import tool_conformance
from streams.sandboxes.pool import SandboxPool, SandboxSession
from streams.sandboxes.protocol import Description
from streams.sandboxes.walks import Walk, compare, falsified, shown, wander

_NOT_AN_ACTION = "\u2014 no action of any environment \u2014"
_RESERVED_FOLD = "test"
_GENERATED = 4


class Check(FrozenModel):
    """One promise: what was seen, and whether it was kept."""

    name: str
    kept: bool
    seen: str


@dataclass(slots=True)
class Suite:
    """The checks, in order, on one environment whose `tasks` may be played.

    `restores` is how many states each declared way is made to bring back.
    """

    pool: SandboxPool
    description: Description
    tasks: Sequence[Task]
    restores: int
    generator: random.Random
    length: int = 12
    _walks: list[Walk] = field(default_factory=list)

    async def run(self, on_progress: Callable[[str, int, int], None]) -> list[Check]:
        """All checks. `on_progress` is told the name of each as it begins, its number, and how many there are."""
        checks: list[tuple[str, Callable[[], Awaitable[str]]]] = [
            ("capabilities agree with what is offered", self._capabilities),
            ("the same actions lead to the same states", self._determinism),
            ("fingerprints change with the state", self._fingerprints),
            *((f"states come back exactly by {way}", self._restores_by(way)) for way in self._ways),
            ("branches share no state", self._branches),
            ("sessions share no state", self._sessions),
            ("a recording that is not what happens is caught", self._divergence),
            ("what is not an action is answered", self._nonsense),
            ("tools are defined as models are given them", self._definitions),
            ("each call is answered once, by its id", self._answers),
            ("a call that cannot be executed is answered", self._impossible_calls),
            ("refusals leave the session usable", self._refusals),
            ("a step over its time ends, and the next session is sound", self._timeouts),
        ]
        if self.description.games:
            checks.append(("demonstrations succeed", self._demonstrations))
        if self.description.generates_tasks:
            checks.append(("generated tasks are the same each time and can be begun", self._generated_tasks))
        done = []
        for number, (name, check) in enumerate(checks):
            on_progress(name, number, len(checks))
            try:
                done.append(Check(name=name, kept=True, seen=await check()))
            except SandboxError as error:
                done.append(Check(name=name, kept=False, seen=str(error)))
        return done

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

    async def _determinism(self) -> str:
        if not self.description.capabilities.deterministic:
            return "not promised"
        for walk in await self._played():
            # The pool gives the second session another process than the one in which the walk was played alone.
            async with self._together(2) as (_, session):
                observations = [await session.reset(walk.task)]
                fingerprints = [await session.fingerprint()]
                for action in walk.actions:
                    observations.append(await session.step(action))
                    fingerprints.append(await session.fingerprint())
            compare(walk.shown, list(map(shown, observations)), f"{walk.task.task_id}, played twice")
            compare(walk.fingerprints, fingerprints, f"the fingerprints of {walk.task.task_id}, played twice")
        return f"{sum(walk.states for walk in self._walks)} states of {len(self._walks)} walks"

    async def _fingerprints(self) -> str:
        different = 0
        for walk in await self._played():
            known: dict[str, str] = {}
            for text, fingerprint in zip(walk.shown, walk.fingerprints, strict=True):
                known.setdefault(fingerprint, text)
            different += len(known)
            if len(known) == 1 and len(set(walk.shown)) > 2:
                raise BrokenPromiseError(f"the fingerprint never changed in {walk.task.task_id}: {walk.shown}"[:1000])
        if not self.description.capabilities.complete_fingerprint:
            return f"{different} different ones"
        idle = 0
        for walk in self._walks:
            idle += await self._without_idle_steps(walk)
        return f"{different} different ones; {idle} steps that left them as they were changed nothing"

    async def _without_idle_steps(self, walk: Walk) -> int:
        """Play a walk without the steps that left the fingerprint as it was; all others must show what they showed."""
        busy = [
            number for number in range(len(walk.actions)) if walk.fingerprints[number] != walk.fingerprints[number + 1]
        ]
        async with self.pool.session() as session:
            played = await session.replay(walk.task, [walk.actions[number] for number in busy])
        compare(
            [walk.shown[0], *(walk.shown[number + 1] for number in busy)],
            list(map(shown, played)),
            f"{walk.task.task_id} without the steps that change nothing",
        )
        return len(walk.actions) - len(busy)

    def _restores_by(self, way: Restore) -> Callable[[], Awaitable[str]]:
        async def check() -> str:
            restored = 0
            while restored < self.restores:
                for walk in await self._played():
                    restored += await self._restore(walk, way, min(self.restores - restored, walk.states))
            return f"{restored} states brought back, 0 mismatches"

        return check

    async def _generated_tasks(self) -> str:
        """Ask twice, in two processes and another cut, and begin some."""
        made: list[Task] = []
        for game in self.description.games:
            for fold in ("train", "dev"):
                async with self._together(2) as (one, other):
                    try:
                        first = await one.generate(game, fold, 0, _GENERATED)
                        again = await other.generate(game, fold, 1, _GENERATED)
                    except SandboxError:
                        continue  # the game has no such fold
                if first[1:] != again[: len(first) - 1]:
                    raise BrokenPromiseError(
                        f"the generated tasks of {game!r} are others when asked again: {again[:2]}"
                    )
                made += first
        listed = {task.task_id for task in self.tasks}
        if doubled := listed.intersection(task.task_id for task in made):
            raise BrokenPromiseError(f"it generates tasks that it lists: {sorted(doubled)[0]!r}")
        for task in made[:2]:
            async with self.pool.session() as session:
                begun = shown(await session.reset(task))
                compare([begun], [shown(await session.reset(task))], f"the generated task {task.task_id}, begun twice")
        return f"{len(made)} tasks" if made else "it generates none"

    async def _restore(self, walk: Walk, way: Restore, most: int) -> int:
        async with self.pool.session() as session:
            followed = await session.follow(walk.task, walk.actions, walk.messages, way)
            if followed.divergence:
                raise BrokenPromiseError(f"{walk.task.task_id} cannot be followed: {followed.divergence}")
            for _ in range(most):
                step = self.generator.randrange(walk.states)
                await session.restore(step)
                where = f"{walk.task.task_id} at state {step}"
                compare([walk.fingerprints[step]], [await session.fingerprint()], f"the fingerprint of {where}")
                # From there it must go on as it did.
                for number in range(step, min(step + 2, len(walk.actions))):
                    answer = await session.step(walk.actions[number])
                    compare([walk.shown[number + 1]], [shown(answer)], f"step {number} after {where}")
        return most

    async def _branches(self) -> str:
        if not self._ways:
            return "states cannot be brought back"
        tried = 0
        for walk in await self._played():
            async with self.pool.session() as session:
                await session.follow(walk.task, walk.actions, walk.messages)
                step = self.generator.randrange(walk.states)
                actions = [*dict.fromkeys(walk.actions), assistant(_NOT_AN_ACTION)]
                forwards = [shown(answer) for answer in await session.branch(step, actions)]
                backwards = [shown(answer) for answer in await session.branch(step, actions[::-1])]
            compare(forwards, backwards[::-1], f"branches of {walk.task.task_id} at state {step} in another order")
            tried += len(actions)
        return f"{tried} branches in both orders"

    async def _sessions(self) -> str:
        walks = (await self._played())[:4]
        async with self._together(len(walks)) as sessions:
            seen = [[shown(await session.reset(walk.task))] for session, walk in zip(sessions, walks, strict=True)]
            for number in range(self.length):
                for session, walk, so_far in zip(sessions, walks, seen, strict=True):
                    if number < len(walk.actions):
                        so_far.append(shown(await session.step(walk.actions[number])))
        for walk, so_far in zip(walks, seen, strict=True):
            compare(walk.shown, so_far, f"{walk.task.task_id}, played beside others")
        return f"{len(walks)} sessions in turns"

    async def _divergence(self) -> str:
        if not self._ways:
            return "states cannot be brought back"
        caught = 0
        for walk in await self._played():
            step = self.generator.randrange(walk.states)
            wrong = [*walk.messages[:step], falsified(walk.messages[step]), *walk.messages[step + 1 :]]
            async with self.pool.session() as session:
                followed = await session.follow(walk.task, walk.actions, wrong)
            if not followed.divergence or len(followed.states) != step:
                raise BrokenPromiseError(f"a wrong observation at state {step} of {walk.task.task_id} was not noticed")
            caught += 1
        return f"{caught} of {caught} wrong recordings"

    async def _nonsense(self) -> str:
        async with self.pool.session() as session:
            await session.reset(self.tasks[0])
            for action in ("", _NOT_AN_ACTION, "[{", "\x00", "a" * 10_000):
                await session.step(assistant(action))
        return "5 answers"

    async def _definitions(self) -> str:
        most = 0
        for walk in await self._played():
            for observation in walk.observations:
                tool_conformance.check_definitions(observation.tools or (), self.description.harness)
                most = max(most, len(observation.tools or ()))
        return f"{most} tools at most" if most else "it offers no tools"

    async def _answers(self) -> str:
        answered = 0
        for walk in await self._played():
            tool_conformance.check_opening(walk.observations[0])
            for action, answer in zip(walk.actions, walk.observations[1:], strict=True):
                tool_conformance.check_answers(action, answer)
                answered += len(action.calls)
            if calling := next((action for action in walk.actions if action.calls), None):
                both = tool_conformance.side_by_side(calling)
                async with self.pool.session() as session:
                    await session.reset(walk.task)
                    tool_conformance.check_answers(both, await session.step(both))
                answered += len(both.calls)
        return f"{answered} calls"

    async def _impossible_calls(self) -> str:
        first = (await self._played())[0].observations[0]
        if not first.tools:
            return "it offers no tools at first"
        actions = tool_conformance.impossible_actions(first.tools)
        async with self.pool.session() as session:
            await session.reset(self.tasks[0])
            for action in actions:
                tool_conformance.check_refused(action, await session.step(action))
        return f"{len(actions)} answers"

    async def _refusals(self) -> str:
        unknown = Task(environment=self.pool.environment, task_id=_NOT_AN_ACTION)
        async with self.pool.session() as session:
            for _ in range(2):
                try:
                    await session.reset(unknown)
                except SandboxError:
                    pass
                else:
                    raise BrokenPromiseError("it began a task that does not exist")
            first = await session.reset(self.tasks[0])
            compare([shown(await session.reset(self.tasks[0]))], [shown(first)], "a second reset")
            if self.description.games:
                try:
                    await session.tasks(self.description.games[0], _RESERVED_FOLD)
                except SandboxError:
                    return "an unknown task and the reserved fold"
                raise BrokenPromiseError(f"it lists the tasks of the fold {_RESERVED_FOLD!r}, which is reserved")
        return "an unknown task"

    async def _timeouts(self) -> str:
        async with self.pool.session() as session:
            session.step_timeout_s = 1e-6
            try:
                await session.reset(self.tasks[0])
            except StepTimeoutError:
                pass
            else:
                raise BrokenPromiseError("a reset that takes no time at all was answered")
        walk = (await self._played())[0]
        async with self.pool.session() as session:
            compare([walk.shown[0]], [shown(await session.reset(walk.task))], "the first reset after a time-out")
        return "the process was replaced"

    async def _demonstrations(self) -> str:
        for task in self.tasks:
            async with self.pool.session() as session:
                actions = await session.demonstration(task)
                last = (await session.replay(task, actions))[-1]
            for action in actions:
                tool_conformance.check_own_ids(action)
            if not last.success:
                said = f"the last answer is {last.text[:200]!r}" if last.text else "its check does not find it solved"
                raise BrokenPromiseError(
                    f"the demonstration of {task.task_id} ends without success after {len(actions)} actions, with the "
                    f"score {last.score:g}: {said}"
                )
        return f"{len(self.tasks)} tasks"

    @asynccontextmanager
    async def _together(self, number: int) -> AsyncIterator[list[SandboxSession]]:
        if number == 0:
            yield []
            return
        async with self.pool.session() as session, self._together(number - 1) as others:
            yield [session, *others]

    async def _played(self) -> list[Walk]:
        """A walk for each task: its demonstration, with steps aside."""
        if not self._walks:
            for task in self.tasks:
                async with self.pool.session() as session:
                    plan = await session.demonstration(task) if self.description.games else ()
                    self._walks.append(await wander(session, task, plan, self.length, self.generator))
        return self._walks
