"""The operator's commands over a real broker and a real record role, each in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest
from kafka import KafkaProducer
from typer.testing import CliRunner

from daemon.cli import app
from learners.snapshots import build_snapshot, read_principals
from streams.events import RetractionEvent
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.signatures import SIGNATURE_HEADER, sign
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
        self._environment = kept | {
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

    def __call__(self, *arguments: str, status: int = 0) -> str:
        """What a command prints; on failure, what it says last on stderr."""
        done = subprocess.run(
            [sys.executable, "-m", "daemon.cli", *arguments],
            cwd=self.home,
            env=self._environment,
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
                env=self._environment,
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
        """Wait until the store has read all that is published; its sequence."""
        async with StoreClient(self.store_url) as client:
            ends = end_offsets(self.broker.bootstrap, EVENTS)

            async def at_the_end() -> bool:
                positions = (await client.status()).positions.get(EVENTS, {})
                return all(positions.get(partition, 0) == end for partition, end in ends.items())

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


@pytest.mark.slow
async def test_a_principal_revokes_consent(tmp_path: Path) -> None:
    with recording(tmp_path) as ratchet:
        ratchet.plays("ann")
        ratchet.plays("bob")
        before = await ratchet.caught_up()
        adapter = await ratchet.trains()
        report = json.loads(ratchet("forget", "--principal", "ann", "--reason", "a letter", "--json"))
        assert (report["episodes"], report["champion_saw"], report["next_parent"]) == (1, False, "base")
        assert [(one["adapter"], one["trajectories"]) for one in report["adapters"]] == [(adapter, 1)]
        marks = [entry for entry in json.loads(ratchet("history", "--json")) if entry["action"] == "retrain"]
        assert [(mark["subject"], mark["retraction"]) for mark in marks] == [(adapter, report["retraction"])]
        assert json.loads(ratchet("why", adapter, "--json"))["retrain"] == [report["retraction"]]

        ratchet.plays("ann-later")
        ratchet.plays("ann")
        await ratchet.caught_up()
        async with StoreClient(ratchet.store_url) as client:
            snapshot = await build_snapshot(client, NOTHING_HELD_OUT, tmp_path / "snapshots")
        assert read_principals(snapshot.folder) == {"bob": 1, "ann-later": 1}
        assert snapshot.manifest.retracted_as_of == report["sequence"] > before
        assert "no adapter saw" in ratchet("forget", "--principal", "eve")


@pytest.mark.slow
async def test_where_principals_have_keys_a_retraction_is_signed_with_that_principals_key(tmp_path: Path) -> None:
    keys = json.dumps({"ann": "key of ann", "bob": "key of bob"})
    with recording(tmp_path, RATCHET_ADMISSION__PRINCIPALS=keys) as ratchet:
        ratchet.plays("ann", key="key of ann")
        await ratchet.caught_up()
        assert json.loads(ratchet("forget", "--principal", "ann", "--json"))["episodes"] == 1
        # A principal without a key is forgotten by the operator's own.
        assert json.loads(ratchet("forget", "--principal", "eve", "--json"))["episodes"] == 0
        (tmp_path / "operator.key").write_bytes(b"a stranger's key")
        refusal = ratchet("forget", "--principal", "eve", status=1)
        assert "the principal is not known" in refusal
        assert "admission.principals" in refusal
        (tmp_path / "operator.key").unlink()
        assert "operator.key cannot be read" in ratchet("forget", "--principal", "eve", status=1)


@pytest.mark.slow
async def test_without_keys_a_strangers_retraction_is_refused_unless_a_setting_allows_it(tmp_path: Path) -> None:
    retraction = RetractionEvent(principal="ann", reason="a stranger's").to_json()
    refusing, allowing = tmp_path / "refusing", tmp_path / "allowing"
    for home, variables in ((refusing, {}), (allowing, {"RATCHET_ADMISSION__UNSIGNED_RETRACTIONS": "true"})):
        home.mkdir()
        with recording(home, **variables) as ratchet:
            ratchet.publish(retraction)
            await ratchet.caught_up()
            letters = json.loads(ratchet("dead-letters", "list", "--json"))
            refused = ["`ratchet forget` signs it" in letter["error"] for letter in letters]
            assert refused == ([True] if home == refusing else [])
            async with StoreClient(ratchet.store_url) as client:
                stored = await client.query("SELECT principal FROM retractions")
                assert (await client.status()).authenticated is False
            assert stored.num_rows == (0 if home == refusing else 1)
            assert "events are not authenticated" in (home / "record.log").read_text()


@pytest.mark.slow
async def test_earlier_moments_are_listed_and_exported(tmp_path: Path) -> None:
    with recording(tmp_path) as ratchet:
        ratchet.plays("ann")
        sequence = str(await ratchet.caught_up())
        then = ratchet("transitions", "--as-of", sequence, "--json")
        ratchet("export", "--as-of", sequence, "--to", "then.parquet")
        ratchet.plays("bob")
        await ratchet.caught_up()
        assert ratchet("transitions", "--as-of", sequence, "--json") == then
        told = json.loads(ratchet("export", "--as-of", sequence, "--to", "now.parquet", "--json"))
        assert (told["rows"], told["withdrawn"]) == (2, 0)
        assert pq.read_table(tmp_path / "now.parquet").equals(pq.read_table(tmp_path / "then.parquet"))
        assert len(json.loads(ratchet("transitions", "--json", "--origin", "production"))) == 4
        assert len(json.loads(ratchet("transitions", "--json", "--limit", "3"))) == 3
        assert "has come to sequence" in ratchet("transitions", "--as-of", "999999", status=1)
        assert "2 transitions as of" in ratchet("export", "--as-of", sequence, "--to", "then.parquet")


@pytest.mark.slow
async def test_dead_letters_are_listed_shown_and_replayed(tmp_path: Path) -> None:
    with recording(tmp_path) as ratchet:
        ratchet.publish(b"{not json, but [/secret]", b"")
        await ratchet.caught_up()
        letters = json.loads(ratchet("dead-letters", "list", "--json"))
        assert {letter["verdict"] for letter in letters} == {"dead-letter"}
        assert not any("secret" in str(letter) for letter in letters)
        assert "secret" not in ratchet("dead-letters", "list")
        assert "[/secret]" in ratchet("dead-letters", "list", "--show", "--limit", "5")
        assert ratchet("dead-letters", "list", "--verdict", "quarantine", "--json").strip() == "[]"
        position = next(letter["position"] for letter in letters if letter["size"])

        chosen = json.loads(ratchet("dead-letters", "replay", "--position", position, "--dry-run", "--json"))
        assert chosen == {"chosen": [position], "replayed": 0, "dry_run": True}
        assert "1 records were published again" in ratchet("dead-letters", "replay", "--position", position)
        await ratchet.caught_up()
        letters = json.loads(ratchet("dead-letters", "list", "--json"))
        assert {letter["position"] for letter in letters if letter["replayed"]} == {position}
        assert [letter["replay_of"] for letter in letters if "replay_of" in letter] == [position]
        again = json.loads(ratchet("dead-letters", "replay", "--error", "JSON", "--dry-run", "--json"))
        assert position not in again["chosen"]
        assert "dead-letter record not found at ratchet.events/0/77" in ratchet(
            "dead-letters", "replay", "--position", "ratchet.events/0/77", status=1
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("forget", "--principal", "ann"),
        ("transitions",),
        ("export", "--to", "file.parquet"),
    ],
)
def test_without_a_record_role_one_line_says_what_to_do(arguments: tuple[str, ...], tmp_path: Path) -> None:
    with EmbeddedBroker() as broker:
        assert "is the record role running" in Ratchet(broker, tmp_path)(*arguments, status=1)
    assert not (tmp_path / "file.parquet").exists()


@pytest.mark.slow
def test_without_a_cluster_and_a_running_ratchet_an_error_says_that_the_log_is_unknown(tmp_path: Path) -> None:
    with EmbeddedBroker() as broker:
        ratchet = Ratchet(broker, tmp_path, RATCHET_KAFKA__BOOTSTRAP="")
        assert "is `ratchet run` up" in ratchet("dead-letters", "list", status=1)


@pytest.mark.parametrize(
    "arguments",
    [
        ("forget",),
        ("forget", "--principal", ""),
        ("transitions", "--as-of", "-1"),
        ("transitions", "--origin", "moon"),
        ("export", "--as-of", "3"),
        ("export", "--to", "no/such/folder/file.parquet"),
        ("dead-letters", "replay"),
        ("dead-letters", "replay", "--all", "--error", "JSON"),
        ("dead-letters", "replay", "--position", "yesterday"),
        ("dead-letters", "list", "--verdict", "guilty"),
    ],
)
def test_wrong_usage_exits_with_two(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2
