"""Three nodes of Apache Kafka on loopback, any of which may be lost: `$KAFKA_HOME`'s, in KRaft mode."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from streams.runtime.processes import die_with_parent, free_port
from tests.waiting import until

NODES = 3
_CLUSTER_ID = "c29hay1vZi1yYXRjaGV0LQ"
_START_TIMEOUT_S = 180.0


class KafkaCluster:
    """The nodes keep their logs in `data`, each record on all three; two are enough to acknowledge one.

    `home` is an unpacked download of Apache Kafka.
    """

    def __init__(self, home: Path, data: Path) -> None:
        self._java = ["java", "-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{home}/libs/*"]
        self._data = data
        self._ports = [(free_port(), free_port()) for _ in range(NODES)]
        self._lost = set[int]()
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * NODES

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port, _ in self._ports)

    @property
    def pids(self) -> set[int]:
        """The ids of the processes that were started last."""
        return {process.pid for process in self._processes if process is not None}

    def pid(self, node: int) -> int | None:
        process = self._processes[node]
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start all nodes and wait until they listen. Raises `AssertionError` when they do not."""
        for node in range(NODES):
            self.start_node(node)
        until(lambda: all(map(self._listens, range(NODES))), "Apache Kafka starts", within_s=_START_TIMEOUT_S)

    def start_node(self, node: int) -> None:
        """Start a node, which may take a while to listen. The calling thread must outlive it."""
        parent, properties = os.getpid(), self._properties(node)
        with (self._data / f"node-{node}.log").open("ab") as output:
            if not (self._data / f"node-{node}" / "meta.properties").exists():
                form = ["kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(properties)]
                subprocess.run([*self._java, *form], check=True, stdout=output, stderr=output)
            self._processes[node] = subprocess.Popen(
                [*self._java, "kafka.Kafka", str(properties)],
                cwd=self._data,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(parent),
            )

    def kill_node(self, node: int) -> None:
        process = self._processes[node]
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()

    @contextmanager
    def without(self, node: int) -> Iterator[None]:
        """Have one node dead meanwhile."""
        self._lost.add(node)
        self.kill_node(node)
        try:
            yield
        finally:
            self._lost.discard(node)
            self.start_node(node)

    def revive(self) -> None:
        """Start the nodes again that died, but for one that is to be lost."""
        for node, process in enumerate(self._processes):
            if process is not None and process.poll() is not None and node not in self._lost:
                self.start_node(node)

    def kill(self) -> None:
        for node in range(NODES):
            self.kill_node(node)

    def _properties(self, node: int) -> Path:
        port, controller = self._ports[node]
        voters = ",".join(f"{number}@127.0.0.1:{each}" for number, (_, each) in enumerate(self._ports, 1))
        self._data.mkdir(parents=True, exist_ok=True)
        file = self._data / f"node-{node}.properties"
        file.write_text(
            f"process.roles=broker,controller\nnode.id={node + 1}\n"
            f"listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n"
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n"
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n"
            f"controller.quorum.voters={voters}\nlog.dirs={self._data}/node-{node}\n"
            f"default.replication.factor={NODES}\nmin.insync.replicas=2\n"
            f"offsets.topic.replication.factor={NODES}\noffsets.topic.num.partitions=4\n"
            f"transaction.state.log.replication.factor={NODES}\ntransaction.state.log.min.isr=2\n"
            "group.initial.rebalance.delay.ms=0\n"
        )
        return file

    def _listens(self, node: int) -> bool:
        with socket.socket() as probe, suppress(OSError):
            return probe.connect_ex(("127.0.0.1", self._ports[node][0])) == 0
        return False
