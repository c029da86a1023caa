"""Sandbox processes and the sessions in them. Branching and evaluation run every simulator through here.

A process gets a session and process group of its own, an environment without the parent's variables, a private folder
for home and temporary files, and resource limits. When a request takes too long or the process dies, its whole group
is killed, each of its sessions raises `SandboxError` from then on, and the next session gets a fresh process.
"""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from streams.errors import ConfigurationError, SandboxError
from streams.events import Task
from streams.sandboxes.environment import Observation
from streams.sandboxes.java import java_executable
from streams.sandboxes.worker import Answer, Request, registered_environments

log = structlog.get_logger()

_START_TIMEOUT_S = 60.0
_TASKS_TIMEOUT_S = 120.0
_LONGEST_ANSWER_BYTES = 64 * 2**20
_STDERR_TAIL = 1000


class SandboxProcess:
    """One worker process. It does one request at a time; its callers wait for each other."""

    def __init__(self, process: asyncio.subprocess.Process, home: Path) -> None:
        self.pid = process.pid
        self._process = process
        self._home = home
        self._turn = asyncio.Lock()
        self._requests = 0
        self._death = ""

    @classmethod
    async def start(cls, environment: str) -> Self:
        home = Path(tempfile.mkdtemp(prefix="ratchet-sandbox-"))
        with (home / "stderr").open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-m", "streams.sandboxes.worker", environment, str(os.getpid())),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                cwd=home,
                env=_bare_environment(home),
                start_new_session=True,
                limit=_LONGEST_ANSWER_BYTES,
            )
        return cls(process, home)

    @property
    def alive(self) -> bool:
        return not self._death and self._process.returncode is None

    async def ask(self, request: Request, timeout_s: float) -> Answer:
        """The answer to `request`, whose `id` is set here. The time-out, in seconds, counts from when its turn comes.

        Raises `SandboxError` when the environment refuses, the time is over, or the process is dead.
        """
        async with self._turn:
            if not self._death:
                try:
                    async with asyncio.timeout(timeout_s):
                        answer = await self._exchange(request)
                except TimeoutError:
                    await self.kill(f"its {request.op} took longer than {timeout_s:g} s")
                except (OSError, asyncio.IncompleteReadError):
                    await self.kill(f"it died during {request.op}. It last said: {self._last_words()}")
            if self._death:
                raise SandboxError(f"sandbox process {self.pid} is gone: {self._death}. Remedy: open a new session.")
        if answer.error:
            raise SandboxError(answer.error)
        return answer

    async def _exchange(self, request: Request) -> Answer:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests += 1
        identified = request.model_copy(update={"id": self._requests})
        self._process.stdin.write(identified.to_json() + b"\n")
        await self._process.stdin.drain()
        while True:
            answer = Answer.model_validate_json(await self._process.stdout.readuntil(b"\n"))
            # An earlier caller may have been cancelled while it waited; its answer is nobody's.
            if answer.id == identified.id:
                return answer

    async def kill(self, reason: str) -> None:
        """End the process and all that it started, and remove its folder."""
        if self._death:
            return
        self._death = reason
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self._process.wait()
        shutil.rmtree(self._home, ignore_errors=True)

    def _last_words(self) -> str:
        stderr = self._home / "stderr"
        said = stderr.read_text(errors="replace") if stderr.exists() else ""
        return said[-_STDERR_TAIL:].strip() or "nothing"


@dataclass(slots=True)
class SandboxSession:
    """One session in a sandbox process. Every method raises `SandboxError`, for ever once its process is gone."""

    number: int
    step_timeout_s: float
    process: SandboxProcess = field(repr=False)

    async def reset(self, task: Task) -> Observation:
        return (await self.replay(task, ()))[0]

    async def step(self, action: str) -> Observation:
        return (await self._ask(Request(op="step", session=self.number, actions=(action,)))).observations[0]

    async def replay(self, task: Task, actions: Sequence[str]) -> tuple[Observation, ...]:
        """Reset to `task` and take `actions`: one observation for the reset and one for each action."""
        request = Request(op="replay", session=self.number, task=task, actions=tuple(actions))
        return (await self._ask(request)).observations

    async def valid_actions(self) -> tuple[str, ...]:
        return (await self._ask(Request(op="valid_actions", session=self.number))).texts

    async def fingerprint(self) -> str:
        return (await self._ask(Request(op="fingerprint", session=self.number))).texts[0]

    async def demonstration(self, task: Task) -> tuple[str, ...]:
        """Actions that solve `task`."""
        return (await self._ask(Request(op="demonstration", session=self.number, task=task))).texts

    async def tasks(self, game: str, fold: str) -> tuple[Task, ...]:
        request = Request(op="tasks", session=self.number, game=game, fold=fold)
        return (await self.process.ask(request, _TASKS_TIMEOUT_S)).tasks

    async def _ask(self, request: Request) -> Answer:
        return await self.process.ask(request, self.step_timeout_s * (1 + len(request.actions)))


class SandboxPool:
    """`size` processes of one environment, started when first needed and shared by any number of sessions.

    Use it as an asynchronous context manager: no process is left when it ends. `step_timeout_s` is for one step or
    reset, in seconds.
    """

    def __init__(self, environment: str, size: int = 1, step_timeout_s: float = 10.0) -> None:
        self.environment = environment
        self.step_timeout_s = step_timeout_s
        self._slots = [_Slot() for _ in range(size)]
        self._opened = 0

    async def __aenter__(self) -> Self:
        if self.environment not in registered_environments():
            raise ConfigurationError(
                f"the environment {self.environment!r} is not installed as a sandbox. "
                f"Remedy: install the package that registers it, or use one of {sorted(registered_environments())}."
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for slot in self._slots:
            if slot.process is not None:
                await slot.process.kill("its pool was closed")

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the processes that run now."""
        return tuple(slot.process.pid for slot in self._slots if slot.process is not None and slot.process.alive)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[SandboxSession]:
        """A session in the process that has the fewest. Raises `SandboxError` when a process cannot be started."""
        slot = min(self._slots, key=lambda slot: slot.sessions)
        slot.sessions += 1
        try:
            process = await slot.running(self.environment)
            self._opened += 1
            session = SandboxSession(self._opened, self.step_timeout_s, process)
            await process.ask(Request(op="open", session=session.number), _START_TIMEOUT_S)
            try:
                yield session
            finally:
                if process.alive:
                    await process.ask(Request(op="close", session=session.number), self.step_timeout_s)
        finally:
            slot.sessions -= 1

    async def tasks(self, game: str, fold: str) -> tuple[Task, ...]:
        """The environment's own tasks that differ from their first observation on."""
        async with self.session() as session:
            return await session.tasks(game, fold)

    async def demonstration(self, task: Task) -> tuple[str, ...]:
        """Actions that solve `task`."""
        async with self.session() as session:
            return await session.demonstration(task)


@dataclass(slots=True)
class _Slot:
    """A place for one process, which is replaced when it has died."""

    process: SandboxProcess | None = None
    sessions: int = 0
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def running(self, environment: str) -> SandboxProcess:
        async with self.starting:
            if self.process is None or not self.process.alive:
                if self.process is not None:
                    await self.process.kill("it died while nothing was asked of it")
                    log.warning("sandbox replaced", environment=environment, dead=self.process.pid)
                self.process = await SandboxProcess.start(environment)
        return self.process


def _bare_environment(home: Path) -> dict[str, str]:
    """Nothing of the parent's variables reaches a sandbox: no secret, no setting, no proxy."""
    variables = {"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": str(home), "TMPDIR": str(home)}
    with suppress(ConfigurationError):
        # Only some environments need Java; one that does says so itself.
        variables["PATH"] = f"{java_executable().parent}{os.pathsep}{os.defpath}"
    return variables
