"""A running cluster of each kind, and topics on it for each test."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from streams.ids import uuid7
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.settings import KafkaSettings
from streams.runtime.processes import die_with_parent, free_port

KAFKA_START_TIMEOUT_S = 90.0


def kafka_command(data: Path, port: int, properties: Sequence[str] = ()) -> list[str] | None:
    """What starts one Apache Kafka node in the foreground: `$KAFKA_HOME`'s, or the one beside the repository.

    `properties` are lines of `server.properties`, with a space in a value as `\\u0020`; they outweigh those here.
    """
    home = os.environ.get("KAFKA_HOME")
    folder = Path(home) if home else Path(__file__).parents[3] / "shared" / "kafka"
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
        self.port, self.tls_port = free_port(), free_port()
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
        deadline = time.monotonic() + KAFKA_START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.2)
        self.kill()
        pytest.fail(f"Apache Kafka did not start: {self._command}")

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@pytest.fixture(scope="session", params=["tansu", pytest.param("apache-kafka", marks=pytest.mark.slow)])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSettings]:
    """A running cluster, and the shortest session it allows: groups wait that long for a member that was killed."""
    if request.param == "tansu":
        with EmbeddedBroker() as broker:
            yield KafkaSettings(bootstrap=broker.bootstrap, session_timeout_s=2)
        return
    node = KafkaNode(tmp_path_factory.mktemp("kafka"))
    node.start()
    yield KafkaSettings(bootstrap=node.bootstrap, session_timeout_s=6)
    node.kill()


@pytest.fixture
def kafka(cluster: KafkaSettings) -> KafkaSettings:
    """Topics and consumer groups of this test's own."""
    name = uuid7()
    return cluster.model_copy(
        update={
            "partitions": 2,
            "group_prefix": name,
            "events_topic": f"{name}.events",
            "branches_topic": f"{name}.branches",
            "transitions_topic": f"{name}.transitions",
            "dead_letters_topic": f"{name}.dead-letters",
        }
    )
