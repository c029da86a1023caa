"""`ratchet run --roles record` as a process, for tests and benchmarks of several at once."""

import os
import subprocess
import sys
from pathlib import Path

import httpx

from daemon.config import PREFIX, Settings
from streams.intake.admission import AdmissionSettings
from streams.kafka.settings import KafkaSettings
from streams.runtime.processes import die_with_parent, free_port
from streams.store.settings import StoreSettings
from streams.trust.holdout import HoldoutSettings
from tests.integration.recording import ROOT

_WRITES = "ratchet_store_write_seconds"


class RecordRole:
    """`ratchet run --roles record`, with a port of its own. It is not started yet."""

    def __init__(
        self,
        kafka: KafkaSettings,
        store: StoreSettings,
        home: Path,
        admission: AdmissionSettings = AdmissionSettings(),  # noqa: B008 - frozen
        holdout: HoldoutSettings = HoldoutSettings(),  # noqa: B008 - frozen
    ) -> None:
        port = free_port()
        store = store.model_copy(update={"port": port})
        settings = Settings(home=home, kafka=kafka, store=store, admission=admission, holdout=holdout).settled()
        self.url = settings.store_url
        self.store = settings.store
        self._log = home.with_name(f"record-{port}.log")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        self._environment = inherited | settings.to_environment()

    def start(self) -> None:
        parent = os.getpid()
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "daemon.cli", "run", "--roles", "record"],
                cwd=ROOT,
                env=self._environment,
                stdout=output,
                stderr=output,
                preexec_fn=lambda: die_with_parent(parent),
            )

    def kill(self) -> None:
        """Kill it, if it was started."""
        if hasattr(self, "process"):
            self.process.kill()
            self.process.wait()

    def written(self) -> tuple[int, float]:
        """The batches that it has stored, and the seconds that they took, the waits for other writers included.

        Raises `httpx.HTTPError` while it does not answer.
        """
        assert self.process.poll() is None, self._log.read_text()[-3000:]
        found = {}
        for line in httpx.get(f"{self.url}/metrics").text.splitlines():
            if line.startswith((f"{_WRITES}_count", f"{_WRITES}_sum")):
                name, value = line.split()
                found[name.removeprefix(f"{_WRITES}_")] = float(value)
        return int(found["count"]), found["sum"]
