"""A Ratchet of single roles, as an operator starts them, that a drill damages and mends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from ratchet_client.events import OutcomeEvent, StepEvent
from ratchet_client.kafka.signatures import SIGNATURE_HEADER, sign
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.clients import producer
from streams.kafka.settings import KafkaSettings
from streams.runtime.processes import die_with_parent, free_port
from tests.builders.engines import Engine
from tests.waiting import until

ROOT = Path(__file__).parents[3]
RATCHET = (sys.executable, "-m", "daemon.cli")
SAID = {"model": "assistant", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 2}
# What has a port of its own, by the variable that sets it.
PORTS = {
    "serve": "SERVING__PORT",
    "record": "STORE__PORT",
    "assemble": "ASSEMBLY__PORT",
    "branch": "HEALTH__BRANCH_PORT",
    "learn": "HEALTH__LEARN_PORT",
    "otlp": "OTLP__PORT",
}


@dataclass
class System:
    """Roles by their names, an inference server of `base`, and a broker, all of them processes. Not started yet.

    `settings` are variables without their prefix; `token` is that of who watches it, where one is asked for. Without a
    `bootstrap` it has an embedded broker of its own. Closing ends everything.
    """

    folder: Path
    base: Path
    settings: dict[str, str] = field(default_factory=dict)
    bootstrap: str = ""
    token: str = ""
    ports: dict[str, int] = field(default_factory=lambda: {role: free_port() for role in PORTS})
    engine: Engine = field(init=False)
    broker: EmbeddedBroker = field(default_factory=EmbeddedBroker)
    _roles: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True)
        self.engine = Engine(self.base, self.folder / "inference.log")
        if not self.bootstrap:
            self.broker.start()
            self.bootstrap = self.broker.bootstrap

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def kafka(self) -> KafkaSettings:
        return KafkaSettings(bootstrap=self.bootstrap)

    def environment(self, also: Mapping[str, str] | None = None) -> dict[str, str]:
        """The variables of every process, and of every command of the operator."""
        ports = {name: str(self.ports[role]) for role, name in PORTS.items()}
        own = {
            "HOME": str(self.home),
            "MODEL": str(self.base),
            "KAFKA__BOOTSTRAP": self.bootstrap,
            "KAFKA__PARTITIONS": "1",
            "KAFKA__SESSION_TIMEOUT_S": "6",
            "ENGINE__PORT": str(self.engine.port),
            "SERVING__REFRESH_S": "0.5",
            "SERVING__RECONCILE_S": "0.5",
            **{"HOLDOUT__SELECTION": "0", "HOLDOUT__CONFIRMATION": "0"},
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RATCHET_")}
        set_here = ports | own | self.settings | dict(also or {})
        return inherited | {f"RATCHET_{name}": value for name, value in set_here.items()} | {"PYTHONPATH": str(ROOT)}

    def url(self, role: str) -> str:
        return f"http://127.0.0.1:{self.ports[role]}"

    @property
    def authorization(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"} if self.token else {}

    def start(self, *roles: str, also: Mapping[str, str] | None = None) -> None:
        """Start roles, with `also` as further variables, and return when each answers."""
        self.begin(*roles, also=also)
        for role in roles:
            until(
                lambda role=role: self.answers(role),  # type: ignore[misc]
                lambda role=role: f"{role} starts: {self.log(role)[-2000:]}",  # type: ignore[misc]
                errors=(httpx.TransportError,),
            )

    def begin(self, *roles: str, also: Mapping[str, str] | None = None) -> None:
        """Start roles, and do not wait for them."""
        parent = os.getpid()
        (self.home / "logs").mkdir(exist_ok=True)
        for role in roles:
            with self.log_file(role).open("ab") as output:
                self._roles[role] = subprocess.Popen(
                    [*RATCHET, "run", "--roles", role],
                    cwd=self.folder,
                    env=self.environment(also),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    preexec_fn=lambda: die_with_parent(parent),
                )

    def answers(self, role: str) -> bool:
        """Return whether the role answers; of the serve role, whether it has a model. Fails when it has ended."""
        assert self._roles[role].poll() is None, self.log(role)[-2000:]
        alive = httpx.get(f"{self.url(role)}/healthz").is_success
        if role != "serve" or self.engine.process is None or self.engine.has_ended():
            return alive
        status = httpx.get(f"{self.url(role)}/status", headers=self.authorization)
        return alive and status.json()["served"] is not None

    def kill(self, *roles: str, number: signal.Signals = signal.SIGKILL) -> None:
        for role in roles:
            self._roles[role].send_signal(number)
            self._roles[role].wait(60)

    @contextmanager
    def paused(self, role: str) -> Iterator[None]:
        """Have a role stand still meanwhile."""
        self._roles[role].send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._roles[role].send_signal(signal.SIGCONT)

    def wait_for_end(self, role: str) -> None:
        self._roles[role].wait(120)

    def log_file(self, role: str) -> Path:
        return self.home / "logs" / f"{role}.log"

    def log(self, role: str) -> str:
        return self.log_file(role).read_text(errors="replace") if self.log_file(role).is_file() else ""

    def pause_broker(self, paused: bool) -> None:
        """Have the broker hang, as one whose disk does, or go on."""
        assert self.broker.pid is not None
        os.kill(self.broker.pid, signal.SIGSTOP if paused else signal.SIGCONT)

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """A command of the operator, `ratchet` left out, where the home is."""
        return subprocess.run(
            [*RATCHET, *words], cwd=self.folder, env=self.environment(), capture_output=True, text=True, timeout=120
        )

    def ask(self, token: str = "") -> int:
        """A call of an agent; the status of its answer."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        url = f"{self.url('serve')}/v1/chat/completions"
        return httpx.post(url, json=SAID, headers=headers, timeout=30).status_code

    def publish(self, events: Sequence[StepEvent | OutcomeEvent], key: bytes = b"") -> None:
        """Publish events as a producer does, signed where there is a key."""
        with producer("drill", self.bootstrap, self.kafka.security) as client:
            for event in events:
                value = event.to_json()
                headers = [(SIGNATURE_HEADER, sign(key, value).encode())] if key else []
                client.send(self.kafka.events_topic, key=event.episode_id.encode(), value=value, headers=headers)
            client.flush()

    def stored(self, kind: str = "step") -> int:
        """The events of that kind that are stored; 0 while the store does not answer."""
        try:
            return int(httpx.get(f"{self.url('record')}/status", timeout=10).json()["events"].get(kind, 0))
        except (httpx.TransportError, json.JSONDecodeError):
            return 0

    def close(self) -> None:
        for process in self._roles.values():
            children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.kill()
            process.wait()
            for child in children:
                child.kill() if child.is_running() else None
        self.engine.kill()
        self.broker.stop()
