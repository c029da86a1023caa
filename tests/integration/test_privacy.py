"""What was planted in events is nowhere in what Ratchet keeps: not in the store's files, in Parquet, nor in logs."""

import asyncio
import json
import signal
from pathlib import Path

import duckdb
from kafka import KafkaProducer

from learners.snapshots import build_snapshot
from ratchet_client.events import Actor, Event, Message, OutcomeEvent, StepEvent, Task
from streams.kafka.settings import KafkaSettings
from streams.store.client import StoreClient
from streams.store.tables import TABLES
from streams.trust.holdout import HoldoutSettings
from tests.integration.recording import Recorder, answers, caught_up
from tests.planted import PLANTED
from tests.waiting import eventually

EVERYTHING = HoldoutSettings(selection=0.0, confirmation=0.0)
# Shorter ones may stand in any file by chance; the tables are searched for all of them.
LONG_ENOUGH = 6


def planted_episode(number: int, value: str, around: str) -> list[Event]:
    """An expert's episode of two steps, with the value in each place where text can be."""
    text = around.format(value)
    arguments = json.dumps({"arguments": {"text": text}})
    name = f"episode-{number}"
    opening = (Message(role="system", content="Be kind."), Message(role="user", content=text))
    action = Message(role="assistant", content=f"send {arguments}")
    states = (opening, (*opening, action, Message(role="user", content=text)))
    steps: list[Event] = [
        StepEvent(
            episode_id=name,
            step=step,
            agent="assistant",
            principal="tenant/a",
            task=Task(environment="shop", task_id=f"task-{number}"),
            messages=messages,
            action=action,
            observation=text,
            done=step == 1,
            actor=Actor(kind="expert"),
        )
        for step, messages in enumerate(states)
    ]
    evidence = {"notes": [{"said": text, "sent": arguments}]}
    return [*steps, OutcomeEvent(episode_id=name, verifier="desk", success=True, score=1.0, evidence=evidence)]


def publish(kafka: KafkaSettings) -> int:
    """Every planted episode, and every planted value in a record that cannot be read; returns their number."""
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    records = [
        (f"episode-{number}".encode(), event.to_json())
        for number, (value, around, _) in enumerate(PLANTED)
        for event in planted_episode(number, value, around)
    ]
    records += [
        (b"bad", json.dumps({"kind": "step", value: around.format(value)}).encode()) for value, around, _ in PLANTED
    ]
    for key, value in records:
        producer.send(kafka.events_topic, key=key, value=value)
    producer.close()
    return len(records)


async def test_nothing_planted_is_in_any_file_or_log(kafka: KafkaSettings, tmp_path: Path) -> None:
    log = tmp_path / "home.log"
    recorder = Recorder(kafka, tmp_path / "home" / "store.duckdb", EVERYTHING, log)
    recorder.start()
    try:
        async with StoreClient(recorder.url) as client:
            await eventually(lambda: answers(client))
            published = await asyncio.to_thread(publish, kafka)
            await eventually(lambda: caught_up(client, kafka, kafka.events_topic))
            status = await client.status()
            assert status.dead_letters == len(PLANTED)
            assert sum(status.events.values()) + status.dead_letters + status.quarantined == published
            assert sum(status.redactions.values()) > 5 * len(PLANTED)
            await build_snapshot(client, EVERYTHING, tmp_path / "snapshots")
    finally:
        # Killed, so that its write-ahead log stays beside the file.
        recorder.end(signal.SIGKILL)

    files = [path for path in (tmp_path / "home", tmp_path / "snapshots", log) for path in (path, *path.rglob("*"))]
    kept = {path: path.read_bytes() for path in files if path.is_file()}
    assert {".parquet", ".duckdb", ".wal"} <= {path.suffix for path in kept}
    values = [value for value, _, _ in PLANTED]
    assert [
        (value, path.name)
        for value in values
        if len(value) >= LONG_ENOUGH
        for path, data in kept.items()
        if value.encode() in data
    ] == []
    # Both kinds of file compress their strings, so what they say is searched as well.
    texts = stored_texts(recorder.store.path) + parquet_texts(tmp_path / "snapshots")
    assert len(texts) > 10 * len(PLANTED)
    spelt = {value: {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]} for value in values}
    assert [value for value, ways in spelt.items() if any(way in text for way in ways for text in texts)] == []


def stored_texts(path: Path) -> list[str]:
    """Every string and every blob of every table, raw topic positions included."""
    with duckdb.connect(str(path)) as connection:
        rows = [connection.execute(f"SELECT to_json(t)::VARCHAR FROM {table} t").fetchall() for table in TABLES]
        blobs = connection.execute("SELECT value FROM outbox").fetchall()
    return [row[0] for table in rows for row in table] + [row[0].decode() for row in blobs]


def parquet_texts(folder: Path) -> list[str]:
    files = [str(path) for path in folder.rglob("*.parquet")]
    rows = [duckdb.sql(f"SELECT to_json(t)::VARCHAR FROM read_parquet('{file}') t").fetchall() for file in files]
    return [row[0] for table in rows for row in table]
