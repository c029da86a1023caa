"""The record role as a process over a cluster, for the tests of the whole ingestion pipeline."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kafka import KafkaConsumer, KafkaProducer

from ratchet_client.events import OutcomeEvent, StepEvent
from streams.errors import StoreError
from streams.intake.admission import AdmissionSettings
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import end_offsets
from streams.runtime.processes import die_with_parent, free_port
from streams.store.client import StoreClient
from streams.store.settings import StoreSettings
from streams.trust.holdout import HoldoutSettings
from streams.trust.settings import QuotaSettings
from tests.builders.episodes import HOLDOUT
from tests.roles import RoleSettings

ROOT = Path(__file__).parents[2]
# The episodes of these tests are all alike.
UNLIMITED = AdmissionSettings(quota=QuotaSettings(near_duplicates=10**6))
Pairs = Sequence[tuple[str, bytes]]
Publish = Callable[[str, Pairs], None]


class Recorder:
    """The record role as a process that can be killed."""

    def __init__(
        self, kafka: KafkaSettings, path: Path, holdout: HoldoutSettings = HOLDOUT, log: Path | None = None
    ) -> None:
        self.store = StoreSettings(path=path, port=free_port(), batch=200, batch_s=0.1)
        self.url = f"http://127.0.0.1:{self.store.port}"
        self._log = log
        self._settings = RoleSettings(kafka=kafka, store=self.store, holdout=holdout, admission=UNLIMITED)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, root: Path = ROOT) -> None:
        """Start that of the code in `root`."""
        parent = os.getpid()
        command = [sys.executable, "-m", "tests.roles", "record", self._settings.model_dump_json()]
        with open(self._log or os.devnull, "ab") as output:
            self._process = subprocess.Popen(
                command, cwd=root, stdout=output, stderr=output, preexec_fn=lambda: die_with_parent(parent)
            )

    @property
    def has_ended(self) -> bool:
        """Whether its process has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def end(self, number: signal.Signals) -> int:
        """Send the signal; returns the exit status."""
        if self._process is None:
            return 0
        self._process.send_signal(number)
        return self._process.wait(60)


@contextmanager
def recorder_of(kafka: KafkaSettings, folder: Path) -> Iterator[Recorder]:
    """Not started yet; killed in the end."""
    role = Recorder(kafka, folder / "store.duckdb")
    try:
        yield role
    finally:
        role.end(signal.SIGKILL)


@contextmanager
def publisher(kafka: KafkaSettings) -> Iterator[Publish]:
    """Publishes pairs of key and value to a topic and returns when the cluster has them."""
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)

    def send(topic: str, pairs: Pairs) -> None:
        for future in [producer.send(topic, key=key.encode(), value=value) for key, value in pairs]:
            future.get(timeout=60)

    yield send
    producer.close()


def pairs(events: Sequence[StepEvent | OutcomeEvent]) -> list[tuple[str, bytes]]:
    """Key and value of each event of an episode, ready to be published."""
    return [(event.episode_id, event.to_json()) for event in events]


async def caught_up(client: StoreClient, kafka: KafkaSettings, topic: str) -> bool:
    status = await client.status()
    positions = status.positions.get(topic, {})
    ends = end_offsets(kafka.bootstrap, topic)
    return all(positions.get(partition, 0) == end for partition, end in ends.items()) and status.outbox_pending == 0


def read_all(kafka: KafkaSettings, topic: str) -> list[tuple[bytes, dict[str, str]]]:
    """Value and headers of every record of the topic."""
    consumer = KafkaConsumer(
        topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=30_000
    )
    records = [next(consumer) for _ in range(sum(end_offsets(kafka.bootstrap, topic).values()))]
    consumer.close()
    return [(record.value, {name: text.decode() for name, text in record.headers}) for record in records]


async def answers(client: StoreClient) -> bool:
    try:
        await client.status()
    except StoreError:
        return False
    return True
