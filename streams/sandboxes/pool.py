"""Sandbox processes and the sessions in them. Branching and evaluation run every simulator through here.

`SandboxPool` keeps a fixed number of processes (`process.py`) for each group of sessions, hands out sessions in the one
that has the fewest, and replaces a process that has died.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from pydantic import JsonValue

from ratchet_client.errors import ConfigurationError
from ratchet_client.events import Task
from ratchet_client.ids import uuid7
from ratchet_client.messages import Message, Messages
from streams.environments.environment import Network, Observation, Restore
from streams.environments.registry import Needs, registered_environments
from streams.errors import SandboxError
from streams.sandboxes.isolation.resource_monitor import ResourceMonitor
from streams.sandboxes.isolation.settings import Isolation, Limits
from streams.sandboxes.isolation.tiers import choose
from streams.sandboxes.permissions import Permissions, network_refusal
from streams.sandboxes.process import SandboxProcess
from streams.sandboxes.protocol import Answer, Description, Followed, Request, Start
from streams.sandboxes.settings import SandboxSettings

log = structlog.get_logger()

_START_TIMEOUT_S = 60.0
# A machine does not change; trying what works on it takes longer than starting a sandbox.
_chosen = cache(choose)
_TASKS_TIMEOUT_S = 120.0
# Requests that all processes together work at, per processor: some wait. What more would do at once takes each longer,
# until its time-out.
_AT_WORK = 2


@dataclass(slots=True)
class SandboxSession:
    """One session in a sandbox process.

    Every method raises `SandboxError`, permanently once its process is gone: `StepTimeoutError` or `SandboxDiedError`
    when it was this session's request that the process did not survive.
    """

    number: int
    step_timeout_s: float
    process: SandboxProcess = field(repr=False)

    async def reset(self, task: Task) -> Observation:
        return (await self.replay(task, ()))[0]

    async def step(self, action: Message) -> Observation:
        return (await self._ask(Request(op="step", session=self.number, actions=(action,)), 1)).observations[0]

    async def replay(self, task: Task, actions: Sequence[Message]) -> tuple[Observation, ...]:
        """Reset to `task` and take `actions`: one observation for the reset and one for each action."""
        request = Request(op="replay", session=self.number, task=task, actions=tuple(actions))
        return (await self._ask(request, 1 + len(actions))).observations

    async def follow(
        self, task: Task, actions: Sequence[Message], expected: Sequence[Messages], way: Restore | None = None
    ) -> Followed:
        """Walk a recorded trajectory as far as it is what was recorded. Its states can then be restored.

        `expected` has the recorded messages of the reset and of each action; there is one more state than actions. They
        are restored by `way` or, by default, the cheapest that the environment has.
        """
        request = Request(
            op="follow", session=self.number, task=task, actions=tuple(actions), expected=tuple(expected), way=way
        )
        answer = await self._ask(request, 1 + len(actions))
        return Followed(answer.states, answer.divergence)

    async def restore(self, step: int) -> None:
        """Bring back the state before action number `step` of the trajectory that was followed last.

        Raises `DivergedError` when it is not that state.
        """
        await self._ask(Request(op="restore", session=self.number, step=step), 1 + step)

    async def branch(self, step: int, actions: Sequence[Message]) -> tuple[Observation, ...]:
        """The observation of each of `actions` from the state before action number `step`, restored for each."""
        request = Request(op="branch", session=self.number, step=step, actions=tuple(actions))
        return (await self._ask(request, (2 + step) * len(actions))).observations

    async def valid_actions(self) -> tuple[str, ...]:
        return (await self._ask(Request(op="valid_actions", session=self.number))).texts

    async def fingerprint(self) -> str:
        return (await self._ask(Request(op="fingerprint", session=self.number))).texts[0]

    async def canonical(self, actions: Sequence[Message]) -> tuple[str, ...]:
        """A key for each action, one for all that do the same."""
        return (await self._ask(Request(op="canonical", session=self.number, actions=tuple(actions)))).texts

    async def describe(self) -> Description:
        description = (await self._ask(Request(op="describe", session=self.number))).description
        assert description is not None
        return description

    async def demonstration(self, task: Task) -> tuple[Message, ...]:
        """Actions that solve `task`."""
        return (await self._ask(Request(op="demonstration", session=self.number, task=task))).actions

    async def tasks(self, game: str, fold: str) -> tuple[Task, ...]:
        request = Request(op="tasks", session=self.number, game=game, fold=fold)
        return (await self.process.ask(request, _TASKS_TIMEOUT_S)).tasks

    async def generate(self, game: str, fold: str, first: int, count: int) -> tuple[Task, ...]:
        """Tasks beyond those that the environment lists; none where it generates none."""
        request = Request(op="generate", session=self.number, game=game, fold=fold, first=first, count=count)
        return (await self.process.ask(request, _TASKS_TIMEOUT_S)).tasks

    async def unsolvable(self, game: str) -> tuple[Task, ...]:
        """Tasks that cannot be solved; none where the environment brings none."""
        request = Request(op="unsolvable", session=self.number, game=game)
        return (await self.process.ask(request, _TASKS_TIMEOUT_S)).tasks

    async def _ask(self, request: Request, steps: int = 1) -> Answer:
        return await self.process.ask(request, self.step_timeout_s * steps)


class SandboxPool:
    """`size` processes of one environment, started when first needed and shared by any number of sessions.

    Sessions may be opened in a named group, which has `size` processes of its own that no other session was ever in:
    what is done there, even to the process itself, reaches no other group.

    Use it as an asynchronous context manager: no process is left when it ends. `step_timeout_s` is for one step or
    reset, in seconds; `settings` are the environment's own; `limits` are for each process, and `readable` are paths
    that it may read besides what every sandbox does and what its environment asks for; `permissions` are the operator's
    for this environment.
    """

    def __init__(
        self,
        environment: str,
        size: int = 1,
        step_timeout_s: float = 10.0,
        settings: Mapping[str, JsonValue] | None = None,
        isolation: Isolation = "auto",
        limits: Limits = Limits(),  # noqa: B008 - frozen
        readable: Sequence[Path] = (),
        permissions: Permissions = Permissions(),  # noqa: B008 - frozen
    ) -> None:
        self.environment = environment
        self.step_timeout_s = step_timeout_s
        self._start = Start(
            environment=environment,
            settings=dict(settings or {}),
            working_folder=str(Path.cwd()),
            step_timeout_s=step_timeout_s,
            observation_bytes=limits.observation_bytes,
        )
        self._size = size
        self._groups: dict[str, list[_Slot]] = {}
        self._isolation = isolation
        self._limits = limits
        self._monitor = ResourceMonitor()
        self._permissions = permissions
        self._readable = tuple(path.absolute() for path in readable)
        self._needs: Needs | None = None
        processors = len(os.sched_getaffinity(0))
        self._at_work = asyncio.Semaphore(max(_AT_WORK * processors, size))
        self._starting_up = asyncio.Semaphore(max(processors, size))
        self._starting = asyncio.Lock()
        self._opened = 0
        self._description: Description | None = None

    async def __aenter__(self) -> Self:
        if self.environment not in registered_environments():
            raise ConfigurationError(
                f"the environment {self.environment!r} is not installed as a sandbox. "
                f"Install the package that registers it, or use one of {sorted(registered_environments())}."
            )
        self._monitor.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end_groups("", *self._groups)
        self._monitor.__exit__(kind, error, trace)

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the processes that run now."""
        slots = (slot for group in self._groups.values() for slot in group)
        return tuple(slot.process.pid for slot in slots if slot.process is not None and slot.process.alive)

    @asynccontextmanager
    async def session(self, group: str = "") -> AsyncIterator[SandboxSession]:
        """A session in the process of `group` that has the fewest.

        Raises `SandboxError` when a process cannot be started.
        """
        slots = self._groups.setdefault(group, [_Slot() for _ in range(self._size)])
        slot = min(slots, key=lambda slot: slot.sessions)
        slot.sessions += 1
        try:
            async with self._starting_up:
                process = await self._running(slot)
                self._opened += 1
                session = SandboxSession(self._opened, self.step_timeout_s, process)
                await process.ask(Request(op="open", session=session.number), _START_TIMEOUT_S)
            try:
                yield session
            finally:
                if process.alive:
                    await self._close(session)
        finally:
            slot.sessions -= 1

    @asynccontextmanager
    async def fresh_session(self, or_group: str | None = None) -> AsyncIterator[SandboxSession]:
        """A session in a process that no other was or will be in, so that no other has changed what judges it.

        Where an environment's sessions share processes, it is one of the group `or_group`, if one is named.
        """
        if or_group is not None and (await self._needed()).shares_processes:
            async with self.session(or_group) as session:
                yield session
            return
        own = f"fresh {uuid7()}"
        try:
            async with self.session(own) as session:
                yield session
        finally:
            await self.end_groups(own)

    async def end_groups(self, *groups: str) -> None:
        """End the processes of these groups, without any of all that have a name: the next session gets a new one."""
        for group in groups or filter(None, tuple(self._groups)):
            for slot in self._groups.pop(group, ()):
                async with slot.starting:
                    if slot.process is not None:
                        await slot.process.kill("its group was ended")

    async def _close(self, session: SandboxSession) -> None:
        """Close a session. A process that is gone takes its sessions with it: nothing that was done there is lost."""
        try:
            await session.process.ask(Request(op="close", session=session.number), self.step_timeout_s)
        except SandboxError as error:
            if session.process.alive:
                raise
            # Not its text, which may quote what the sandbox wrote.
            log.warning("sandbox gone when its session ended", environment=self.environment, error=type(error).__name__)

    async def _running(self, slot: "_Slot") -> SandboxProcess:
        async with slot.starting:
            if slot.process is None or not slot.process.alive:
                if slot.process is not None:
                    await slot.process.kill("it died while nothing was asked of it")
                    log.warning("sandbox replaced", environment=self.environment, dead=slot.process.pid)
                slot.process = await self._started(await self._needed())
        return slot.process

    async def _needed(self) -> Needs:
        """What the environment needs; asked once, of a process without network that can read nothing else.

        What it says may depend on what is at the paths that it names, so it is asked again where it can read them.
        """
        async with self._starting:
            if self._needs is None:
                needs = await self._told(())
                if needs.readable:
                    needs = await self._told(needs.readable)
                if refused := network_refusal(self.environment, needs, self._permissions):
                    raise SandboxError(f"{refused}.")
                self._needs = needs
        return self._needs

    async def _told(self, readable: tuple[Path, ...]) -> Needs:
        alone = await self._started(Needs(Network.NONE, readable))
        try:
            answer = await alone.ask(Request(op="needs"), _START_TIMEOUT_S)
        finally:
            await alone.kill("it was asked what it needs")
        assert answer.needs is not None
        return answer.needs

    async def _started(self, needs: Needs) -> SandboxProcess:
        tier = await asyncio.to_thread(_chosen, self._isolation)
        readable = (*self._readable, *self._permissions.readable, *needs.readable)
        return await SandboxProcess.start(
            self._start, needs.network, tier, self._limits, self._monitor, self._at_work, readable
        )

    async def describe(self) -> Description:
        """The environment's own description; the answer is kept."""
        if self._description is None:
            async with self.session() as session:
                self._description = await session.describe()
        return self._description

    async def tasks(self, game: str, fold: str) -> tuple[Task, ...]:
        """The environment's own tasks that differ from their first observation on."""
        async with self.session() as session:
            return await session.tasks(game, fold)

    async def generate(self, game: str, fold: str, first: int, count: int) -> tuple[Task, ...]:
        """Tasks beyond those that the environment lists; none where it generates none."""
        async with self.session() as session:
            return await session.generate(game, fold, first, count)

    async def unsolvable(self, game: str) -> tuple[Task, ...]:
        """Tasks that cannot be solved; none where the environment brings none."""
        async with self.session() as session:
            return await session.unsolvable(game)

    async def demonstration(self, task: Task) -> tuple[Message, ...]:
        """Actions that solve `task`."""
        async with self.session() as session:
            return await session.demonstration(task)


def sandbox_pool(environment: str, settings: SandboxSettings, size: int) -> SandboxPool:
    """A pool of `size` processes as the settings have it."""
    return SandboxPool(
        environment,
        size,
        settings.step_timeout_s,
        settings.environments.get(environment),
        settings.isolation,
        settings.limits,
        settings.readable,
        settings.permissions.get(environment, Permissions()),
    )


@dataclass(slots=True)
class _Slot:
    """A place for one process, which is replaced when it has died."""

    process: SandboxProcess | None = None
    sessions: int = 0
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)
