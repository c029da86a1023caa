"""Starts the processes of a Ratchet on one machine, restarts those that die, and leaves none behind.

`ratchet run` and the demo use it. Each role is `ratchet run --roles ROLE` with the resolved settings as environment
variables; the embedded broker and the embedded inference server are started where the settings name no others.
"""

import asyncio
import contextlib
import os
import signal
import ssl
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import structlog

from daemon.config import PREFIX, Settings
from daemon.roles import Role
from ratchet_client.errors import BrokerError
from streams.access.tokens import INTERNAL_ROLES_VARIABLE, INTERNAL_VARIABLE, TOKEN_VARIABLE, new_token
from streams.errors import SupervisorError
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.unread import keep_unread, publish_kept
from streams.runtime.computing import COMPUTE_VARIABLES
from streams.runtime.processes import is_free
from streams.runtime.tls import context_for

log = structlog.get_logger()

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 15.0
UNREAD_FILE = "unread.jsonl"
"""In the home, from one end of the embedded broker to its next start."""
_POLL_S = 0.2
_TELL_EVERY_S = 10.0
_LONGEST_PAUSE_S = 30.0


@dataclass(slots=True)
class Service:
    """One child process. `health` is an address that answers once it works, None for one that has none.

    `context` is that of a client of this address, where it needs one of its own.
    """

    name: str
    command: tuple[str, ...]
    health: str | None
    environment: dict[str, str]
    log_file: Path
    process: asyncio.subprocess.Process | None = None
    context: ssl.SSLContext | None = None

    async def start(self) -> None:
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment,
                # Ctrl-C must reach the children through the supervisor, in its order, and not from the terminal.
                start_new_session=True,
            )

    async def ready(self, say: Callable[[str], None] = lambda text: None) -> None:
        """Wait until the service answers. Raises `SupervisorError` when it ends instead, or takes too long.

        `say` is told that it answers, and now and then that it does not yet.
        """
        if self.health is None:
            return
        began = time.monotonic()
        deadline, told = began + START_TIMEOUT_S, began
        async with httpx.AsyncClient(timeout=5.0, verify=self.context or True) as http:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if (await http.get(self.health)).is_success:
                        say(f"{self.name} answers at {self.health}")
                        return
                if self.process is None or self.process.returncode is not None or time.monotonic() > deadline:
                    raise SupervisorError(
                        f"{self.name} did not start: {self.last_words()} (all of it in {self.log_file})"
                    )
                if time.monotonic() - told > _TELL_EVERY_S:
                    told = time.monotonic()
                    say(f"{self.name} starts, for {told - began:.0f} s now; its log is {self.log_file}")
                await asyncio.sleep(_POLL_S)

    async def stop(self) -> None:
        process = self.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            log.warning("killed, it did not stop", service=self.name, after_s=STOP_TIMEOUT_S)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def last_words(self) -> str:
        lines = self.log_file.read_text(errors="replace").splitlines() if self.log_file.is_file() else []
        return " | ".join(lines[-3:])


@dataclass(slots=True)
class Supervisor:
    """Runs `roles` with `settings`. Use it as a context manager.

    `base` is the folder of the base model; None will do where `starts_engine` says no. Entering returns when everything
    answers, and raises `SupervisorError` when something does not. `say` is told how the start goes on.
    """

    settings: Settings
    base: Path | None
    roles: Sequence[Role]
    say: Callable[[str], None] = lambda text: None
    _broker: EmbeddedBroker | None = None
    _services: list[Service] = field(default_factory=list)
    _watches: list[asyncio.Task[None]] = field(default_factory=list)
    # By it the roles know each other. It is in their environment alone, and ends with them.
    _token: str = field(default_factory=new_token, repr=False)

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def wait(self) -> None:
        """Return never; raise `SupervisorError` when the embedded broker dies, for it takes the log with it."""
        while self._broker is None or self._broker.alive():  # noqa: ASYNC110 - only a poll tells that a process ended
            await asyncio.sleep(_POLL_S)
        raise SupervisorError(
            f"the embedded broker died, and its log with it; see {self.settings.home}/logs/broker.log and start again"
        )

    async def _start(self) -> None:
        logs = self.settings.home / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        if not self.settings.kafka.bootstrap:
            self._broker = EmbeddedBroker(self._broker_port(), logs / "broker.log")
            await asyncio.to_thread(self._broker.start)
            kafka = self.settings.kafka.model_copy(update={"bootstrap": self._broker.bootstrap})
            self.settings = self.settings.model_copy(update={"kafka": kafka})
            kept = await asyncio.to_thread(publish_kept, kafka, self._unread)
            self.say(
                f"the embedded broker is at {self._broker.bootstrap}"
                + (f", with {kept} records of before" if kept else "")
            )
        self._services = []
        if starts_engine(self.settings, self.roles):
            assert self.base is not None  # see the class
            self._services.append(inference_service(self.settings, self.base))
        self._services += [self._role(role) for role in self.roles if role is not Role.LEARN]
        for service in self._services:
            await service.start()
        await asyncio.gather(*(service.ready(self.say) for service in self._services))
        if Role.LEARN in self.roles:
            # It compares with what serves, so it starts when that answers.
            learner = self._role(Role.LEARN)
            await learner.start()
            self.say(f"{learner.name} starts; its log is {learner.log_file}")
            self._services.append(learner)
        self._watches = [asyncio.create_task(self._keep_up(service)) for service in self._services]

    async def _stop(self) -> None:
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        await asyncio.gather(*(service.stop() for service in self._services))
        if self._broker is not None:
            # A file that is still there was not published.
            if self._broker.alive() and not self._unread.exists():
                await self._keep_unread()
            await asyncio.to_thread(self._broker.stop)

    @property
    def _unread(self) -> Path:
        return self.settings.home / UNREAD_FILE

    def _broker_port(self) -> int:
        """The port that is set; where it is the default and taken, as by another home's broker, any that is free."""
        kafka = self.settings.kafka
        if "embedded_port" in kafka.model_fields_set or is_free(kafka.embedded_port):
            return kafka.embedded_port
        self.say(f"the port {kafka.embedded_port} is taken: the embedded broker takes another; set kafka.embedded_port")
        return 0

    async def _keep_unread(self) -> None:
        """Keep what the roles have not read for the next start; the broker's log ends with it."""
        try:
            kept = await asyncio.to_thread(keep_unread, self.settings.kafka, self._unread)
        except (BrokerError, OSError) as error:
            log.error("what was not read is lost with the embedded broker", error=str(error))
            return
        if kept:
            self.say(f"{kept} records that were not read yet are kept for the next start in {self._unread}")

    def _role(self, role: Role) -> Service:
        url = {
            Role.RECORD: self.settings.store_url,
            Role.SERVE: self.settings.control_url,
            Role.ASSEMBLE: self.settings.assembly_url,
            Role.OTLP: self.settings.otlp_url,
        }.get(role)
        command = (sys.executable, "-m", "daemon.cli", "run", "--roles", role.value, "--parent", str(os.getpid()))
        tokens = {INTERNAL_VARIABLE: self._token, INTERNAL_ROLES_VARIABLE: ",".join(self.roles)}
        if TOKEN_VARIABLE in os.environ:
            tokens[TOKEN_VARIABLE] = os.environ[TOKEN_VARIABLE]
        service = _service(self.settings, role.value, command, None if url is None else f"{url}/healthz", tokens)
        service.context = None if url is None else context_for(url)
        return service

    async def _keep_up(self, service: Service) -> None:
        pause = 0.5
        while True:
            assert service.process is not None  # it was started
            began = time.monotonic()
            status = await service.process.wait()
            if time.monotonic() - began > 2 * _LONGEST_PAUSE_S:
                pause = 0.5
            log.error("restarting", service=service.name, status=status, said=service.last_words(), pause_s=pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            await service.start()


def starts_engine(settings: Settings, roles: Sequence[Role]) -> bool:
    """Return whether a supervisor of these roles starts the embedded inference server."""
    return Role.SERVE in roles and not settings.engine.named


def inference_service(settings: Settings, base: Path) -> Service:
    """The embedded inference server of the base model in the folder `base`, not started yet."""
    engine = settings.engine
    command = (
        *(sys.executable, "-m", "daemon.inference", "--model", str(base)),
        *("--port", str(engine.port), "--threads", str(engine.threads), "--slots", str(engine.slots)),
        *("--max-length", str(engine.max_length), "--log-format", settings.log.format),
        *("--log-level", settings.log.level),
    )
    return _service(settings, "inference", command, f"http://127.0.0.1:{engine.port}/health")


def _service(
    settings: Settings, name: str, command: tuple[str, ...], health: str | None, tokens: Mapping[str, str] | None = None
) -> Service:
    own = settings.to_environment() | dict(tokens or {})
    # What was resolved stands: a variable for one key would win over the section it is part of.
    inherited = {variable: value for variable, value in os.environ.items() if not variable.upper().startswith(PREFIX)}
    return Service(name, command, health, COMPUTE_VARIABLES | inherited | own, settings.home / "logs" / f"{name}.log")
