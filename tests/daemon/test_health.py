"""The health of real roles, each a process of its own, over a real broker: also while the store hangs."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx
import pytest

from daemon.config import Settings
from daemon.roles import Role
from streams.kafka.broker import EmbeddedBroker
from streams.runtime.health import Readiness
from streams.runtime.processes import die_with_parent, free_port
from tests.waiting import until

ROOT = Path(__file__).parents[2]
PORTS = {
    Role.RECORD: "STORE__PORT",
    Role.BRANCH: "HEALTH__BRANCH_PORT",
    Role.LEARN: "HEALTH__LEARN_PORT",
    Role.SERVE: "SERVING__PORT",
    Role.ASSEMBLE: "ASSEMBLY__PORT",
    Role.OTLP: "OTLP__PORT",
}


class Roles:
    """The processes of the roles; nothing is at the address of their inference server."""

    def __init__(self, bootstrap: str, home: Path) -> None:
        self._home = home
        self._ports = {role: free_port() for role in Role}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RATCHET_")}
        self._environment = kept | {
            "RATCHET_HOME": str(home),
            "RATCHET_KAFKA__BOOTSTRAP": bootstrap,
            "RATCHET_KAFKA__PARTITIONS": "1",
            "RATCHET_ENGINE__URL": f"http://127.0.0.1:{free_port()}",
            "PYTHONPATH": str(ROOT),
            **{f"RATCHET_{variable}": str(self._ports[role]) for role, variable in PORTS.items()},
        }

    def start(self, role: Role) -> "subprocess.Popen[bytes]":
        """The role's process, which dies with this one; returns when it answers."""
        parent = os.getpid()
        log = self._home / f"{role}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "daemon.cli", "run", "--roles", role],
                cwd=self._home,
                env=self._environment,
                stdout=output,
                stderr=output,
                preexec_fn=lambda: die_with_parent(parent),
            )
        until(
            lambda: process.poll() is not None or self.get(role, "/healthz").is_success,
            lambda: log.read_text()[-2000:],
            errors=(httpx.TransportError,),
        )
        assert process.poll() is None, log.read_text()[-2000:]
        return process

    def get(self, role: Role, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self._ports[role]}{path}", timeout=60)

    def unready(self, role: Role) -> dict[str, str]:
        """The reasons for which the role is not ready, by component."""
        answer = self.get(role, "/readyz")
        found = Readiness.model_validate(answer.json())
        assert (answer.status_code, found.ready) == ((503, False) if found.reasons else (200, True))
        return found.reasons

    def is_ready(self, role: Role) -> bool:
        return not self.unready(role)


@pytest.fixture
def roles(tmp_path: Path) -> Iterator[Roles]:
    with EmbeddedBroker() as broker:
        yield Roles(broker.bootstrap, tmp_path)


@pytest.mark.nightly
def test_every_role_answers_and_a_store_that_hangs_is_named_by_those_that_need_it(roles: Roles) -> None:
    with ExitStack() as running:
        processes = {}
        for role in Role:
            processes[role] = running.enter_context(roles.start(role))
            running.callback(processes[role].kill)
        for role in set(Role) - {Role.SERVE}:
            until(partial(roles.is_ready, role), f"{role} is ready")
        assert list(roles.unready(Role.SERVE)) == ["engine"]  # there is none
        versions = {roles.get(role, "/version").text for role in Role}
        assert len(versions) == 1

        processes[Role.RECORD].send_signal(signal.SIGSTOP)
        try:
            for role in set(Role) - {Role.RECORD}:
                assert roles.get(role, "/healthz").status_code == 200
            assert set(roles.unready(Role.SERVE)) == {"engine", "store"}
            assert list(roles.unready(Role.LEARN)) == ["store"]
            assert not roles.unready(Role.ASSEMBLE)
        finally:
            processes[Role.RECORD].send_signal(signal.SIGCONT)
        until(partial(roles.is_ready, Role.LEARN), "the store is seen again")


def test_the_ports_of_health_can_be_set_to_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_HEALTH__BRANCH_PORT", "0")
    health = Settings.load().health
    assert (health.host, health.branch_port, health.learn_port) == ("127.0.0.1", 0, 8404)
