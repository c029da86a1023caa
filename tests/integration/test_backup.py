"""A backup of a record role at work over a real cluster, and another record role that goes on from it."""

import asyncio
import signal
from pathlib import Path
from threading import Event, Thread

import duckdb
import pytest

from daemon.backups.creating import Source, create_backup
from daemon.backups.manifest import STORE_FILE
from daemon.backups.restoring import restore_backup
from daemon.registry.verifying import verify
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import end_offsets
from streams.store.arrival import has_arrived
from streams.store.client import StoreClient
from streams.trust.holdout import Split
from tests.builders.episodes import TASKS, episode
from tests.crash.invariants import ALWAYS
from tests.integration.recording import Recorder, answers, caught_up, pairs, publisher
from tests.waiting import eventually, until


class Load:
    """Publishes episodes until it is told to stop; `acknowledged` are the ids of events that the cluster has."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.acknowledged: list[str] = []
        self._kafka = kafka
        self._stop = Event()
        self._thread = Thread(target=self._publish)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _publish(self) -> None:
        with publisher(self._kafka) as publish:
            number = 0
            while not self._stop.is_set():
                events = episode(f"e{number}", TASKS[Split.TRAIN][number % 5], action=f"go {number}")
                publish(self._kafka.events_topic, pairs(events))
                self.acknowledged += [event.event_id for event in events]
                number += 1


def ids(path: Path) -> list[str]:
    with duckdb.connect(str(path), read_only=True) as connection:
        return [row[0] for row in connection.execute("SELECT event_id FROM events").fetchall()]


@pytest.mark.slow
async def test_a_backup_under_load_has_what_was_acknowledged_and_goes_on_without_loss_or_duplicates(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    home, restored = tmp_path / "home", tmp_path / "restored"
    recorder, load = Recorder(kafka, home / STORE_FILE), Load(kafka)
    recorder.start()
    try:
        async with StoreClient(recorder.url) as client:
            await eventually(lambda: answers(client))
            load.start()
            await asyncio.to_thread(until, lambda: len(load.acknowledged) > 60)
            acknowledged = list(load.acknowledged)
            await has_arrived(kafka, client, 60.0)
            source = Source(home, recorder.store, home / "assembly.sqlite", recorder.url, "{}\n")
            manifest = await create_backup(source, tmp_path / "backup", lambda text: None)
            await asyncio.to_thread(until, lambda: len(load.acknowledged) > len(acknowledged) + 60)
    finally:
        load.stop()
        recorder.end(signal.SIGKILL)
    await asyncio.to_thread(restore_backup, tmp_path / "backup", restored, lambda text: None)
    assert manifest.findings == ()
    assert verify(restored).findings == ()
    stored = ids(restored / STORE_FILE)
    assert set(acknowledged) <= set(stored)
    assert len(stored) == len(set(stored))
    with duckdb.connect(str(restored / STORE_FILE), read_only=True) as connection:
        ends = connection.execute("FROM offsets WHERE topic <> 'outbox'").fetchall()
        counted = dict(connection.execute("SELECT partition, count(*) FROM events GROUP BY partition").fetchall())
    assert {partition: next_ for topic, partition, next_ in ends if topic == kafka.events_topic} == counted

    # Another record role goes on where the backup ended.
    other = Recorder(kafka, restored / STORE_FILE)
    other.start()
    try:
        async with StoreClient(other.url) as client:
            await eventually(lambda: answers(client))
            await eventually(lambda: caught_up(client, kafka, kafka.events_topic))
            for rule in ALWAYS:
                topics = {"events": kafka.events_topic, "transitions": kafka.transitions_topic}
                sql = rule.sql.format(**topics, branches=kafka.branches_topic)
                assert (rule.says, (await client.query(sql)).to_pylist()) == (rule.says, [])
    finally:
        other.end(signal.SIGTERM)
    found = ids(restored / STORE_FILE)
    assert sorted(found) == sorted(set(load.acknowledged))
    assert sum(end_offsets(kafka.bootstrap, kafka.events_topic).values()) == len(found)
