"""The whole of Ratchet as `ratchet run` starts it, with load on it: kept up, asked, and stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pyarrow as pa

from daemon.config import DomainSettings, EngineSettings, HealthSettings, Settings
from daemon.serving.settings import ServingSettings
from evaluation.settings import GateSettings
from learners.settings import LearnerSettings, LoraSettings, PracticeSettings, Stage
from streams.assembly.settings import AssemblySettings
from streams.branching.settings import BranchingSettings, RecoverySettings
from streams.kafka.settings import KafkaSettings
from streams.runtime.processes import die_with_parent, free_port
from streams.store.settings import StoreSettings
from tests.crash.ledger import Acknowledged, Ledger
from tests.crash.load import LoadSettings
from tests.crash.stage import UNLIMITED
from tests.crash.victims import ROOT, Victim
from tests.soak.accounts import Calls
from tests.soak.agents import ENVIRONMENT, SUITE, AgentSettings
from tests.soak.cluster import NODES, KafkaCluster
from tests.soak.faults import ROLES
from tests.soak.processes import orphans
from tests.soak.surroundings import Surroundings

MODEL, RECORDED = "model", "recordings.json"
"""Made by `tests.soak.prepare` in the folder of a soak."""
_RATCHET = (sys.executable, "-m", "daemon.cli")
_PRACTICE = PracticeSettings(
    enabled=True,
    tasks=4,
    samples=4,
    rest_s=20,
    min_new_episodes=4,
    stages=(Stage(objective="rejection_sampling", updates=20, trajectories=4),),
)
_REAP_EVERY_S = 10.0
_ASK_TIMEOUT_S, _PROBE_TIMEOUT_S = 60.0, 5.0


def settings_of(home: Path, model: Path, cluster: KafkaCluster | None) -> Settings:
    """Everything small: a tiny model that practises a lottery, and branches of one alternative."""
    kafka = KafkaSettings(
        bootstrap=cluster.bootstrap if cluster else "",
        embedded_port=free_port(),
        partitions=2,
        replication=NODES if cluster else 1,
        session_timeout_s=6.0,
        stall_timeout_s=60.0,
    )
    return Settings(
        home=home,
        model=str(model),
        kafka=kafka,
        # Caches are small, so that they are soon full, and memory can be seen to be flat.
        store=StoreSettings(port=free_port(), memory="192MB"),
        admission=UNLIMITED,
        engine=EngineSettings(port=free_port(), threads=1, slots=8),
        serving=ServingSettings(port=free_port(), reconcile_s=0.5),
        assembly=AssemblySettings(port=free_port(), settle_s=2, call_idle_s=20),
        branching=BranchingSettings(
            samples=0, alternatives=2, max_tokens=8, recovery=RecoverySettings(attempts=1, steps=1)
        ),
        health=HealthSettings(branch_port=free_port(), learn_port=free_port()),
        gate=GateSettings(gates=("improvement",), min_tasks=30, spending="constant"),
        domain=DomainSettings(environment=ENVIRONMENT, suite=SUITE, out_of_domain_tasks=0),
        learner=LearnerSettings(
            lora=LoraSettings(rank=8, alpha=16),
            learning_rate=2e-2,
            threads=1,
            # The load's episodes are stored and branched; cycles come of practice alone.
            min_new_episodes=10**9,
            practice=_PRACTICE,
        ),
    ).settled()


@dataclass(slots=True)
class System:
    """`ratchet run` and its load. Make it with `running`, and have `revive` called all the time.

    `starts` counts how often `ratchet run` was started.
    """

    settings: Settings
    folder: Path
    surroundings: Surroundings
    cluster: KafkaCluster | None
    starts: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _loads: dict[Victim, Ledger] = field(default_factory=dict)
    _agents: Victim | None = None
    _stored: set[str] = field(default_factory=set)
    _since: int = 0
    _ended: float | None = None
    _reap_at: float = 0.0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def bootstrap(self) -> str:
        return self.settings.kafka.bootstrap or f"127.0.0.1:{self.settings.kafka.embedded_port}"

    @property
    def stop_file(self) -> Path:
        return self.folder / "stop"

    def variables(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RATCHET_")}
        return inherited | self.settings.to_environment()

    def start(self) -> None:
        """Start `ratchet run`. The calling thread must outlive it."""
        parent = os.getpid()
        with (self.folder / "run.log").open("ab") as output:
            self._process = subprocess.Popen(
                [*_RATCHET, "run", "--roles", ",".join(ROLES)],
                cwd=ROOT,
                env=self.variables() | self.surroundings.variables(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(parent),
            )
        self.starts += 1
        self._ended = None

    def start_load(self, recordings: Path, pause_s: float) -> None:
        """Start the producers and the agents; their ledgers are in the folder."""
        for name in ("producer", "library"):
            load = LoadSettings(
                name=name,
                bootstrap=self.bootstrap,
                topic=self.settings.kafka.events_topic,
                recordings=recordings,
                ledger=self.folder / f"{name}.ledger",
                stop=self.stop_file,
                spool=self.folder / "spool" if name == "library" else None,
                pause_s=pause_s,
            )
            victim = Victim(name, "tests.crash.load", (load.model_dump_json(),), self.folder / f"{name}.log")
            self._loads[victim] = Ledger(load.ledger)
        agents = AgentSettings(
            base_url=f"{self.settings.control_url}/",
            model=str(self.settings.serving.alias),
            ledger=self.folder / "agents.ledger",
            stop=self.stop_file,
        )
        self._agents = Victim("agents", "tests.soak.agents", (agents.model_dump_json(),), self.folder / "agents.log")
        for victim in self._victims:
            victim.start()

    @property
    def _victims(self) -> tuple[Victim, ...]:
        return (*self._loads, *([self._agents] if self._agents else []))

    def orphans(self) -> list[psutil.Process]:
        """What was started by something that has ended, and has not ended itself."""
        nodes = self.cluster.pids if self.cluster is not None else set()
        run = {self._process.pid} if self._process is not None else set()
        return orphans({*run, *nodes, *(victim.pid for victim in self._victims if victim.pid is not None)})

    def revive(self) -> None:
        """Start again what ended, as an operator would."""
        if self._process is not None and self._process.poll() is not None:
            self._ended = self._ended or time.monotonic()
            if time.monotonic() - self._ended > 1.0:
                self.start()
        if self.cluster is not None:
            self.cluster.revive()
        for victim in self._victims:
            victim.revive()
        if time.monotonic() > self._reap_at:
            # What ended among them would otherwise stay in the table of processes.
            self.orphans()
            self._reap_at = time.monotonic() + _REAP_EVERY_S

    @property
    def load_ended(self) -> bool:
        return all(victim.status == 0 for victim in self._victims)

    def acknowledged(self) -> Acknowledged:
        """What producers were told by now that it is kept."""
        found = Acknowledged()
        for ledger in self._loads.values():
            found = found.join(ledger.read())
        return found

    def calls(self) -> Calls:
        """What the agents noted by now."""
        path = self.folder / "agents.ledger"
        text = path.read_bytes().decode(errors="replace") if path.exists() else ""
        return Calls.of(text[: text.rfind("\n") + 1].splitlines())

    def ask(self, sql: str) -> list[tuple[object, ...]]:
        """The rows of a SELECT, from the record role. Raises `httpx.HTTPError` while it does not answer."""
        url = f"{self.settings.store_url}/query"
        response = httpx.post(url, json={"sql": sql}, timeout=_ASK_TIMEOUT_S).raise_for_status()
        return list(zip(*pa.ipc.open_stream(response.content).read_all().to_pydict().values(), strict=True))

    def stored(self) -> set[str]:
        """The ids of all stored events; asks only for those since it asked last. Raises `httpx.HTTPError`."""
        for event, sequence in self.ask(f"SELECT event_id, sequence FROM events WHERE sequence > {self._since}"):
            self._stored.add(str(event))
            self._since = max(self._since, int(str(sequence)))
        return self._stored

    @property
    def known(self) -> frozenset[str]:
        """The ids that `stored` gave last."""
        return frozenset(self._stored)

    def answers(self) -> bool:
        """Whether an agent gets a reply from the gateway, the store answers, and so does every other role.

        Nothing of it is recorded.
        """
        settings = self.settings
        said = {"model": str(settings.serving.alias), "max_tokens": 1}
        body = said | {"messages": [{"role": "user", "content": "Are you there?"}]}
        health = settings.health
        others = [f"http://{health.host}:{port}" for port in (health.branch_port, health.learn_port)]
        others.append(settings.assembly_url)
        with suppress(httpx.HTTPError), httpx.Client(timeout=_PROBE_TIMEOUT_S) as http:
            url = f"{settings.control_url}/v1/chat/completions"
            return (
                http.post(url, json=body, headers={"x-ratchet-capture": "off"}).is_success
                and http.post(f"{settings.store_url}/query", json={"sql": "SELECT 1"}).is_success
                and all(http.get(f"{other}/healthz").is_success for other in others)
            )
        return False

    def end(self, within_s: float = 60.0) -> int:
        """Tell `ratchet run` to end, and wait; returns its exit status. What does not end is killed."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def kill(self) -> None:
        """End everything at once."""
        for victim in self._victims:
            victim.end(signal.SIGKILL)
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self.cluster is not None:
            self.cluster.kill()
        for process in self.orphans():
            process.kill()

    def verified(self) -> list[str]:
        """What `ratchet verify` finds wrong with the home."""
        done = subprocess.run(
            [*_RATCHET, "verify", "--json"], cwd=ROOT, env=self.variables(), capture_output=True, text=True
        )
        if done.returncode not in (0, 1) or not done.stdout:
            return [f"ratchet verify failed: {done.stderr[-500:]}"]
        return [f"{each['path']}: {each['problem']}" for each in json.loads(done.stdout)["findings"]]

    def promoted(self) -> set[str]:
        """The digests of all adapters that were ever promoted or restored, by the audit log."""
        command = [*_RATCHET, "history", "--limit", "1000000", "--json"]
        told = subprocess.run(command, cwd=ROOT, env=self.variables(), capture_output=True, text=True, check=True)
        return {each["subject"] for each in json.loads(told.stdout) if each["action"] in ("promoted", "restored")}


@contextmanager
def running(system: System) -> Iterator[System]:
    """Start the cluster and `ratchet run`; in the end nothing of it is left."""
    try:
        if system.cluster is not None:
            system.cluster.start()
        system.start()
        yield system
    finally:
        system.kill()
