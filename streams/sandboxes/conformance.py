"""Conformance suite of environments: `ratchet environment check NAME` runs this suite.

Everything is asked of real sandbox processes, as branching asks it. Each check says what it saw, and in numbers where
it repeats something; a broken promise comes with the first example of it.
"""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from streams.environments.environment import Network, Observation, Restore
from streams.environments.tool_call_mutations import mutations
from streams.errors import BrokenPromiseError, SandboxError, StepTimeoutError, ToolCallError
from streams.events import Task
from streams.sandboxes.pool import SandboxPool, SandboxSession
from streams.sandboxes.protocol import Description
from streams.settings import FrozenModel

_NOT_AN_ACTION = "\u2014 no action of any environment \u2014"
_RESERVED_FOLD = "test"


class Check(FrozenModel):
    """One promise: what was seen, and whether it was kept."""

    name: str
    kept: bool
    seen: str


@dataclass(frozen=True, slots=True)
class Walk:
    """A trajectory as it was played: one text and one fingerprint more than actions."""

    task: Task
    actions: tuple[str, ...]
    texts: tuple[str, ...]
    fingerprints: tuple[str, ...]


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
            ("refusals leave the session usable", self._refusals),
            ("a step over its time ends, and the next session is sound", self._timeouts),
        ]
        if self.description.games:
            checks.append(("demonstrations succeed", self._demonstrations))
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
            _compare(
                walk.texts, [observation.text for observation in observations], f"{walk.task.task_id}, played twice"
            )
            _compare(walk.fingerprints, fingerprints, f"the fingerprints of {walk.task.task_id}, played twice")
        return f"{sum(len(walk.texts) for walk in self._walks)} states of {len(self._walks)} walks"

    async def _fingerprints(self) -> str:
        different = 0
        for walk in await self._played():
            known: dict[str, str] = {}
            for text, fingerprint in zip(walk.texts, walk.fingerprints, strict=True):
                known.setdefault(fingerprint, text)
            different += len(known)
            if len(known) == 1 and len(set(walk.texts)) > 2:
                raise BrokenPromiseError(f"the fingerprint never changed in {walk.task.task_id}: {walk.actions}")
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
        _compare(
            [walk.texts[0], *(walk.texts[number + 1] for number in busy)],
            [observation.text for observation in played],
            f"{walk.task.task_id} without the steps that change nothing",
        )
        return len(walk.actions) - len(busy)

    def _restores_by(self, way: Restore) -> Callable[[], Awaitable[str]]:
        async def check() -> str:
            restored = 0
            while restored < self.restores:
                for walk in await self._played():
                    restored += await self._restore(walk, way, min(self.restores - restored, len(walk.texts)))
            return f"{restored} states brought back, 0 mismatches"

        return check

    async def _restore(self, walk: Walk, way: Restore, most: int) -> int:
        async with self.pool.session() as session:
            followed = await session.follow(walk.task, walk.actions, walk.texts, way)
            if followed.divergence:
                raise BrokenPromiseError(f"{walk.task.task_id} cannot be followed: {followed.divergence}")
            for _ in range(most):
                step = self.generator.randrange(len(walk.texts))
                await session.restore(step)
                where = f"{walk.task.task_id} at state {step}"
                _compare([walk.fingerprints[step]], [await session.fingerprint()], f"the fingerprint of {where}")
                # From there it must go on as it did.
                for number in range(step, min(step + 2, len(walk.actions))):
                    answer = await session.step(walk.actions[number])
                    _compare([walk.texts[number + 1]], [answer.text], f"step {number} after {where}")
        return most

    async def _branches(self) -> str:
        if not self._ways:
            return "states cannot be brought back"
        tried = 0
        for walk in await self._played():
            async with self.pool.session() as session:
                await session.follow(walk.task, walk.actions, walk.texts)
                step = self.generator.randrange(len(walk.texts))
                actions = [*dict.fromkeys(walk.actions), _NOT_AN_ACTION]
                forwards = [answer.text for answer in await session.branch(step, actions)]
                backwards = [answer.text for answer in await session.branch(step, actions[::-1])]
            _compare(forwards, backwards[::-1], f"branches of {walk.task.task_id} at state {step} in another order")
            tried += len(actions)
        return f"{tried} branches in both orders"

    async def _sessions(self) -> str:
        walks = (await self._played())[:4]
        async with self._together(len(walks)) as sessions:
            seen = [[(await session.reset(walk.task)).text] for session, walk in zip(sessions, walks, strict=True)]
            for number in range(self.length):
                for session, walk, texts in zip(sessions, walks, seen, strict=True):
                    if number < len(walk.actions):
                        texts.append((await session.step(walk.actions[number])).text)
        for walk, texts in zip(walks, seen, strict=True):
            _compare(walk.texts, texts, f"{walk.task.task_id}, played beside others")
        return f"{len(walks)} sessions in turns"

    async def _divergence(self) -> str:
        if not self._ways:
            return "states cannot be brought back"
        caught = 0
        for walk in await self._played():
            step = self.generator.randrange(len(walk.texts))
            wrong = (*walk.texts[:step], f"{walk.texts[step]} And then it rains.", *walk.texts[step + 1 :])
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
                await session.step(action)
        return "5 answers"

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
            _compare([(await session.reset(self.tasks[0])).text], [first.text], "a second reset")
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
            _compare([walk.texts[0]], [(await session.reset(walk.task)).text], "the first reset after a time-out")
        return "the process was replaced"

    async def _demonstrations(self) -> str:
        for task in self.tasks:
            async with self.pool.session() as session:
                last = (await session.replay(task, await session.demonstration(task)))[-1]
            if not last.success:
                raise BrokenPromiseError(
                    f"the demonstration of {task.task_id} ends without success: {last.text[:200]!r}"
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
                    self._walks.append(await self._walk(session, task))
        return self._walks

    async def _walk(self, session: SandboxSession, task: Task) -> Walk:
        plan = list(await session.demonstration(task)) if self.description.games else []
        observations: list[Observation] = [await session.reset(task)]
        fingerprints = [await session.fingerprint()]
        actions: list[str] = []
        while len(actions) < self.length and not observations[-1].done:
            aside = await self._aside(session, plan, observations[-1].text)
            action = plan.pop(0) if plan and (not aside or self.generator.random() < 0.5) else aside
            if not action:
                break
            observations.append(await session.step(action))
            fingerprints.append(await session.fingerprint())
            actions.append(action)
        texts = tuple(observation.text for observation in observations)
        return Walk(task, tuple(actions), texts, tuple(fingerprints))

    async def _aside(self, session: SandboxSession, plan: Sequence[str], context: str) -> str:
        """An action off the demonstration; empty when there is none."""
        if valid := await session.valid_actions():
            return self.generator.choice(valid)
        if plan and self.description.has_tools:
            try:
                changed = mutations(plan[0], await session.tools(), context, self.generator, 1)
            except ToolCallError:
                return ""
            return changed[0] if changed else ""
        return ""


def _compare(expected: Sequence[str], seen: Sequence[str], what: str) -> None:
    for number, (wanted, got) in enumerate(zip(expected, seen, strict=True)):
        if wanted != got:
            raise BrokenPromiseError(f"{what}: number {number} was {wanted[:200]!r} and then {got[:200]!r}")
