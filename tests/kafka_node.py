"""Apache Kafka, for the tests that need the real one."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from streams.runtime.processes import die_with_parent, free_port
from tests.waiting import until

KAFKA_START_TIMEOUT_S = 90.0


def kafka_command(data: Path, port: int, properties: Sequence[str] = ()) -> list[str] | None:
    """What starts one Apache Kafka node in the foreground: `$KAFKA_HOME`'s, or the one beside the repository.

    `properties` are lines of `server.properties`, with a space in a value as `\\u0020`; they outweigh those here.
    """
    home = os.environ.get("KAFKA_HOME")
    folder = Path(home) if home else Path(__file__).parents[2] / "shared" / "kafka"
    if (folder / "run").exists():
        return ["env", f"KAFKA_OPTS={' '.join(properties)}", str(folder / "run"), str(data), str(port)]
    if not (folder / "bin" / "kafka-server-start.sh").exists():
        return None
    data.mkdir(parents=True, exist_ok=True)
    file = data / "server.properties"
    listeners = f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{port + 1}"
    file.write_text(
        f"process.roles=broker,controller\nnode.id=1\nlisteners={listeners}\nlog.dirs={data}/log\n"
        f"advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n"
        f"controller.quorum.voters=1@127.0.0.1:{port + 1}\noffsets.topic.replication.factor=1\n"
        "group.initial.rebalance.delay.ms=0\n" + "".join(f"{line}\n" for line in properties)
    )
    storage = folder / "bin" / "kafka-storage.sh"
    if not (data / "log" / "meta.properties").exists():
        cluster = subprocess.run([storage, "random-uuid"], check=True, capture_output=True, text=True).stdout.strip()
        subprocess.run([storage, "format", "-t", cluster, "-c", file], check=True, stdout=subprocess.DEVNULL)
    return [str(folder / "bin" / "kafka-server-start.sh"), str(file)]


class KafkaNode:
    """One Apache Kafka node on loopback that keeps its log in `data`."""

    def __init__(self, data: Path, *, tls_listener: Sequence[str] = ()) -> None:
        """`tls_listener` are properties of a second listener, named SASL_SSL, on `tls_port`."""
        self.port, self.tls_port = _free_pair(), free_port()
        command = kafka_command(data, self.port, self._listeners(tls_listener) if tls_listener else ())
        if command is None:
            pytest.skip("no Apache Kafka: set KAFKA_HOME to an unpacked download to run this test")
        if shutil.which("java") is None:
            pytest.skip("Apache Kafka needs Java 17 or newer on PATH")
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _listeners(self, tls_listener: Sequence[str]) -> list[str]:
        clients = f"PLAINTEXT://127.0.0.1:{self.port},SASL_SSL://127.0.0.1:{self.tls_port}"
        return [
            f"listeners={clients},CONTROLLER://127.0.0.1:{self.port + 1}",
            f"advertised.listeners={clients}",
            "inter.broker.listener.name=PLAINTEXT",
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL",
            *tls_listener,
        ]

    def start(self) -> None:
        parent = os.getpid()
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: die_with_parent(parent),
        )
        try:
            until(self._listens_or_ended, f"Apache Kafka starts: {self._command}", within_s=KAFKA_START_TIMEOUT_S)
        except AssertionError:
            self.kill()
            raise
        assert self._process.poll() is None, f"Apache Kafka ended: {self._command}"

    def _listens_or_ended(self) -> bool:
        with socket.socket() as probe:
            listens = probe.connect_ex(("127.0.0.1", self.port)) == 0
        return listens or self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _free_pair() -> int:
    """A free port for clients, of which the next one is free too: the controller takes that."""
    while True:
        port = free_port()
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port + 1))
            return port
