"""One sandbox process as its pool sees it: how it is started isolated, asked and killed.

When a request takes too long or the process dies, everything that it has started is killed, and each of its sessions
raises `SandboxError` from then on.
"""

import asyncio
import os
import secrets
import sys
from collections import deque
from pathlib import Path
from typing import Self

from streams.environments.environment import Network
from streams.errors import (
    DivergedError,
    ObservationTooLargeError,
    SandboxDiedError,
    SandboxError,
    SandboxGoneError,
    StepTimeoutError,
)
from streams.sandboxes.isolation.home import make_home, remove_home
from streams.sandboxes.isolation.launching import Confinement, Tier
from streams.sandboxes.isolation.resource_monitor import ResourceMonitor, Watch
from streams.sandboxes.isolation.settings import Limits
from streams.sandboxes.protocol import Answer, Request, Start

_LONGEST_ANSWER_BYTES = 64 * 2**20
_STDERR_TAIL = 1000
_COMMAND = (sys.executable, "-I", "-m", "streams.sandboxes.worker")


class SandboxProcess:
    """One worker process. It works one request at a time; its callers wait for each other."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        monitor: ResourceMonitor,
        watch: Watch,
        folder: Path,
        most_bytes: int,
        at_work: asyncio.Semaphore,
    ) -> None:
        self.pid = process.pid
        self._process = process
        self._monitor = monitor
        self._watch = watch
        self._folder = folder
        self._most_bytes = most_bytes
        self._at_work = at_work
        self._turn = asyncio.Lock()
        self._unanswered: deque[str] = deque()
        self._death = ""

    @classmethod
    async def start(
        cls,
        start: Start,
        network: Network,
        tier: Tier,
        limits: Limits,
        monitor: ResourceMonitor,
        at_work: asyncio.Semaphore,
        readable: tuple[Path, ...] = (),
    ) -> Self:
        """Start a process isolated by `tier`. It works while it has a permit of `at_work`, which others share.

        Cancelled, it leaves no process. Raises `SandboxError` when the process does not live.
        """
        starting = asyncio.create_task(cls._started(start, network, tier, limits, monitor, at_work, readable))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # Cancelled half-way, asyncio kills the first process alone and waits for pipes that those below it hold.
            await asyncio.wait({starting})
            if starting.exception() is None:
                await starting.result().kill("its start was cancelled")
            raise

    @classmethod
    async def _started(
        cls,
        start: Start,
        network: Network,
        tier: Tier,
        limits: Limits,
        monitor: ResourceMonitor,
        at_work: asyncio.Semaphore,
        readable: tuple[Path, ...],
    ) -> Self:
        missing = [str(path) for path in readable if not path.exists()]
        if missing:
            raise SandboxError(
                f"the sandbox of {start.environment!r} is to read {missing[0]}, which does not exist. Correct "
                f"branching.readable or the paths in [branching.environments.{start.environment}]."
            )
        folder = make_home()
        try:
            with (
                (folder / "stderr").open("wb") as stderr,
                tier.launch(_COMMAND, Confinement(folder, network, limits, readable)) as launch,
            ):
                process = await asyncio.create_subprocess_exec(
                    *launch.command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=stderr,
                    env=launch.variables,
                    pass_fds=launch.fds,
                    start_new_session=True,
                    limit=_LONGEST_ANSWER_BYTES,
                )
            watch = monitor.watch(process.pid, limits, launch.files)
        except (OSError, SandboxError):
            remove_home(folder)
            raise
        assert process.stdin is not None
        process.stdin.write(start.to_json() + b"\n")
        return cls(process, monitor, watch, folder, start.observation_bytes, at_work)

    @property
    def alive(self) -> bool:
        return not self._death and self._process.returncode is None

    async def ask(self, request: Request, timeout_s: float) -> Answer:
        """The answer to `request`, whose `id` is set here. The time-out, in seconds, counts from when its turn comes.

        The process itself ends a step that takes too long; this is for one that cannot.

        Raises:
            StepTimeoutError: it took too long. The process was killed.
            SandboxDiedError: the process died before it answered, or its answer was none.
            DivergedError: a restored state is not the recorded one.
            ObservationTooLargeError: an observation is larger than it may be.
            SandboxGoneError: the process was dead already.
            SandboxError: the environment refuses.
        """
        # Sent at once, so that the process has its next request when it is done with the last one.
        identified = self._send(request)
        async with self._turn, self._at_work:
            if self._death:
                raise SandboxGoneError(f"sandbox process {self.pid} is gone: {self._death}. Open a new session.")
            self._watch.renew()
            try:
                async with asyncio.timeout(timeout_s):
                    answer = await self._answer_to(identified)
            except TimeoutError as error:
                await self.kill(f"its {request.op} took longer than {timeout_s:g} s")
                raise StepTimeoutError(f"sandbox process {self.pid} was killed: {self._death}") from error
            except (ValueError, asyncio.LimitOverrunError) as error:
                await self.kill(f"it answered {request.op} with what is not an answer")
                raise SandboxDiedError(f"sandbox process {self.pid} was killed: {self._death}: {error}") from error
            except (OSError, asyncio.IncompleteReadError) as error:
                said = await asyncio.to_thread(self._last_words)
                await self.kill(f"it died during {request.op}. It last said: {said}")
                raise SandboxDiedError(f"sandbox process {self.pid} is gone: {self._death}") from error
            if answer.timed_out:
                await self.kill(f"a step of its {request.op} took too long")
                raise StepTimeoutError(f"sandbox process {self.pid} was killed: {self._death}", answer.observations)
            if not answer.error and not answer.is_whole(request):
                await self.kill(f"its answer to {request.op} lacks what was asked for")
                raise SandboxDiedError(f"sandbox process {self.pid} was killed: {self._death}")
            if any(observation.is_larger_than(self._most_bytes) for observation in answer.observations):
                await self.kill(f"its answer to {request.op} has a larger observation than it may")
                raise SandboxDiedError(f"sandbox process {self.pid} was killed: {self._death}")
        if answer.too_large:
            raise ObservationTooLargeError(answer.error, answer.observations)
        if answer.error:
            raise (DivergedError if answer.diverged else SandboxError)(answer.error)
        return answer

    def _send(self, request: Request) -> str:
        assert self._process.stdin is not None
        number = secrets.token_hex(16)
        if not self._death:
            self._unanswered.append(number)
            self._process.stdin.write(request.model_copy(update={"id": number}).to_json() + b"\n")
        return number

    async def _answer_to(self, identified: str) -> Answer:
        """The answer to the request `identified`. Raises `ValueError` for one that no request waits for in its turn."""
        assert self._process.stdout is not None
        while True:
            answer = Answer.model_validate_json(await self._process.stdout.readuntil(b"\n"))
            if answer.id != self._unanswered.popleft():
                raise ValueError("it is to a request that was not made, or not the next one")
            # An earlier caller may have been cancelled while it waited; its answer is unowned.
            if answer.id == identified:
                return answer

    async def kill(self, reason: str) -> None:
        """End the process and all that it started, and remove its folder."""
        if self._death:
            return
        self._death = self._watch.breach or reason
        await asyncio.to_thread(self._watch.kill)
        await self._process.wait()
        self._monitor.forget(self._watch)
        await asyncio.to_thread(remove_home, self._folder)

    def _last_words(self) -> str:
        with (self._folder / "stderr").open("rb") as stderr:
            stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - _STDERR_TAIL))
            return stderr.read().decode(errors="replace").strip() or "nothing"
