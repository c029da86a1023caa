"""A backup beside an assemble role at work has every call that the role has kept and that is no event yet."""

import asyncio
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest

from daemon.backups.creating import Source, create_backup
from daemon.backups.manifest import STORE_FILE, BackupManifest
from daemon.backups.restoring import restore_backup
from ratchet_client.events import StepEvent
from streams.calls.records import CapturedCall
from streams.kafka.publisher import Publisher
from streams.kafka.records import Outgoing
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics
from streams.store.settings import StoreSettings
from tests.builders.captured import Desk, conversation
from tests.integration.otlp_role import OtlpRole, otlp_role_of
from tests.waiting import until

TURNS = [("One.", "and?"), ("Two.", "so?"), ("Three.", "bye")]
NOWHERE = "http://127.0.0.1:9"
NEVER = 10_000


def source_of(home: Path) -> Source:
    return Source(home, StoreSettings(path=home / STORE_FILE), home / "assembly.sqlite", NOWHERE, "{}\n")


def back_up(home: Path, to: Path) -> BackupManifest:
    return asyncio.run(create_backup(source_of(home), to, lambda text: None))


def kept(path: Path) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM records WHERE value IS NOT NULL").fetchone()[0])


def steps(folder: Path) -> set[tuple[str, int, str]]:
    """The steps that an assembler makes of a file, as ids of events with the places of these."""
    desk = Desk(folder, now=1.0)
    desk.restart()
    desk.now += 2 * NEVER
    found = desk.due()
    desk.close()
    return {(event.episode_id, event.step, event.event_id) for event in found if isinstance(event, StepEvent)}


def start(role: OtlpRole, kafka: KafkaSettings) -> None:
    create_topics(kafka)
    slow = dict.fromkeys(("idle_s", "conversation_idle_s", "call_idle_s", "episode_idle_s"), NEVER)
    role.assembly = role.assembly.model_copy(update=slow)
    role.start()


class Load:
    """Publishes conversations that stay open until it is told to stop."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.calls: list[CapturedCall] = []
        self._topic = kafka.calls_topic
        self._publisher = Publisher(kafka, 10, 900_000)
        self._stop = Event()
        self._thread = Thread(target=self._publish)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._publisher.close()

    def _publish(self) -> None:
        while not self._stop.is_set():
            chat = conversation(f"hello {len(self.calls)}", TURNS, principal="ann")
            self._publisher.publish([Outgoing(self._topic, b"key", call.to_json()) for call in chat])
            self.calls += chat


@pytest.mark.nightly
def test_open_conversations_are_in_a_backup_that_is_taken_while_their_role_writes(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with otlp_role_of(kafka, home) as role:
        start(role, kafka)
        load = Load(kafka)
        load.start()
        try:
            until(lambda: kept(home / "assembly.sqlite") > 30, "calls are kept", errors=(sqlite3.Error,))
            before = kept(home / "assembly.sqlite")
            manifest = back_up(home, tmp_path / "backup")
            until(lambda: kept(home / "assembly.sqlite") > before + 30, "its role goes on writing")
        finally:
            load.stop()
        assert httpx.get(f"{role.assembler_url}/status").is_success
        assert "home/assembly.sqlite" in manifest.files
        assert "assembly.sqlite" not in manifest.left_out
        restore_backup(tmp_path / "backup", tmp_path / "restored", lambda text: None)
        assert before <= kept(tmp_path / "restored" / "assembly.sqlite") <= len(load.calls)
        found = steps(tmp_path / "restored")
        assert len(found) >= before
        until(lambda: kept(home / "assembly.sqlite") == len(load.calls), "all calls are kept")

        # Killed, it leaves its write-ahead log, which belongs to what it has kept.
        role.end(signal.SIGKILL)
        again = back_up(home, tmp_path / "after")
        assert "home/assembly.sqlite" in again.files
        restore_backup(tmp_path / "after", tmp_path / "later", lambda text: None)
    every = steps(tmp_path / "later")
    assert len(every) == len(load.calls)
    # What the restored one makes again of a conversation has the ids that the store knows.
    assert every == steps(home)
