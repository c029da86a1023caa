"""The command line over a real broker and a real record role, each in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from kafka import KafkaProducer

from learners.snapshots import build_snapshot
from ratchet_client.kafka.signatures import SIGNATURE_HEADER, sign
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.topics import end_offsets
from streams.runtime.processes import die_with_parent, free_port
from streams.store.client import StoreClient
from streams.trust.holdout import HoldoutSettings, Split
from tests.builders.episodes import TASKS, episode
from tests.builders.trained import entered
from tests.waiting import eventually, until

ROOT = Path(__file__).parents[3]
EVENTS = "ratchet.events"
TASK = TASKS[Split.TRAIN][0]
NOTHING_HELD_OUT = HoldoutSettings(selection=0.0, confirmation=0.0)


class Ratchet:
    """The command in a home of its own, and the record role."""

    def __init__(self, broker: EmbeddedBroker, home: Path, **variables: str) -> None:
        self.broker = broker
        self.home = home
        port = free_port()
        self.store_url = f"http://127.0.0.1:{port}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RATCHET_")}
        self.environment = kept | {
            "RATCHET_HOME": str(home),
            "RATCHET_KAFKA__BOOTSTRAP": broker.bootstrap,
            "RATCHET_KAFKA__PARTITIONS": "2",
            "RATCHET_KAFKA__SESSION_TIMEOUT_S": "2",
            "RATCHET_STORE__PORT": str(port),
            "RATCHET_STORE__BATCH_S": "0.1",
            "RATCHET_SERVING__PORT": str(free_port()),
            "RATCHET_HOLDOUT": NOTHING_HELD_OUT.model_dump_json(),
            "PYTHONPATH": str(ROOT),
            **variables,
        }

    def __call__(self, *arguments: str, status: int = 0, stdin: str = "") -> str:
        """What a command prints; on failure, what it says last on stderr."""
        done = subprocess.run(
            [sys.executable, "-m", "daemon.cli", *arguments],
            cwd=self.home,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == status, done.stderr
        return done.stderr.splitlines()[-1] if status == 1 else done.stdout

    def start(self) -> "subprocess.Popen[bytes]":
        """The record role, which dies with this process."""
        parent = os.getpid()
        with (self.home / "record.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "daemon.cli", "run", "--roles", "record"],
                cwd=self.home,
                env=self.environment,
                stdout=log,
                stderr=log,
                preexec_fn=lambda: die_with_parent(parent),
            )

    def publish(self, *values: bytes, key: str | None = None) -> None:
        producer = KafkaProducer(bootstrap_servers=self.broker.bootstrap)
        for value in values:
            headers = [] if key is None else [(SIGNATURE_HEADER, sign(key.encode(), value).encode())]
            producer.send(EVENTS, key=b"key", value=value, headers=headers).get(10)
        producer.close()

    def plays(self, principal: str, key: str | None = None) -> None:
        """An episode like no other; its name and its principal's are the same."""
        events = episode(principal, TASK, action=f"go {principal}")
        self.publish(*(event.to_json() for event in events), key=key)

    async def caught_up(self) -> int:
        """Wait until the store has read all that is published by now; its sequence."""
        async with StoreClient(self.store_url) as client:
            ends = end_offsets(self.broker.bootstrap, EVENTS)

            async def at_the_end() -> bool:
                positions = (await client.status()).positions.get(EVENTS, {})
                return all(positions.get(partition, 0) >= end for partition, end in ends.items())

            await eventually(at_the_end, "the record role catches up")
            return (await client.status()).sequence

    async def trains(self) -> str:
        async with StoreClient(self.store_url) as client:
            snapshot = await build_snapshot(client, NOTHING_HELD_OUT, self.home / "snapshots")
        return entered(self.home, snapshot)


@contextmanager
def recording(home: Path, **variables: str) -> Iterator[Ratchet]:
    """A broker and a record role that answers."""
    with EmbeddedBroker() as broker:
        ratchet = Ratchet(broker, home, **variables)
        role = ratchet.start()
        try:
            until(
                lambda: role.poll() is not None or httpx.get(f"{ratchet.store_url}/status").is_success,
                lambda: (home / "record.log").read_text()[-2000:],
                errors=(httpx.TransportError,),
            )
            assert role.poll() is None, (home / "record.log").read_text()[-2000:]
            yield ratchet
        finally:
            role.kill()
            role.wait()
