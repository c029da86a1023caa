"""Whatever lies on the topics that roles read, each role goes on behind it, and every record is accounted for."""

import asyncio
import json
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.errors import InvalidTimestampError, MessageSizeTooLargeError, RecordListTooLargeError

from ratchet_client.events import Message, Task
from ratchet_client.ids import uuid7
from streams.assembly import role as assemble_role
from streams.assembly.settings import AssemblySettings
from streams.branch_events import BranchRequest, RecordedStep
from streams.branching import role as branch_role
from streams.branching.settings import BranchingSettings
from streams.intake import role as record_role
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics, end_offsets
from streams.runtime.processes import free_port
from streams.store.client import StoreClient
from streams.store.settings import StoreSettings
from streams.trust.holdout import HoldoutSettings
from tests.builders.episodes import episode
from tests.builders.published import read
from tests.integration.recording import answers
from tests.waiting import eventually

GIANT = 17 * 2**20
FAR_FUTURE_MS = 2**62


@dataclass(frozen=True)
class Hostile:
    value: bytes | None
    key: bytes | None = b"key"
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int | None = None


def altered(**fields: object) -> bytes:
    step = json.loads(episode("odd", steps=1)[0].to_json())
    return json.dumps({**step, "event_id": uuid7(), **fields}).encode()


# None of them is a record of any topic.
GARBAGE = (
    Hostile(None),
    Hostile(None, b""),
    Hostile(b"", None),
    Hostile(b"\xff\xfe\x00"),
    Hostile(b"null"),
    Hostile(b"[" * 100_000),
    Hostile(b'{"kind": "branch_request", "steps": []}'),
    Hostile(b"{}", headers=(("ratchet-signature", b"\xff"), ("", b""), ("name", b"\xc3\x28"))),
    Hostile(b"{}", headers=tuple(("ratchet-offset", b"999") for _ in range(300))),
    Hostile(b"{}", timestamp_ms=FAR_FUTURE_MS),
    Hostile(b"{}", timestamp_ms=0),
    Hostile(altered(step=-1)),
    Hostile(altered(step=2**70)),
    Hostile(altered(recorded_at="+99999-01-01T00:00:00Z")),
    Hostile(altered(episode_id="\ud800")),
    Hostile(b'{"n": ' + b"9" * 5000 + b"}"),
    Hostile(bytes(GIANT)),
)
TASKS = (
    Task(environment="textworld_express", task_id="../../etc/passwd", seed=-1),
    Task(environment="textworld_express", task_id="twc/train/99999999999999999999", seed=2**63 - 1),
    Task(environment="no such environment", task_id="x"),
)


def request(task: Task, verdict: str) -> bytes:
    steps = (RecordedStep(action="\x00", observation="\N{REPLACEMENT CHARACTER}" * 1000),)
    fields = {"episode_id": uuid7(), "task": task, "verdict": verdict, "opening": (Message(role="user", content=""),)}
    return BranchRequest.model_validate({"event_id": uuid7(), **fields, "steps": steps}).to_json()


def publish(kafka: KafkaSettings, topic: str, *records: Hostile) -> int:
    """Publish what the cluster takes; returns how many that are."""
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, max_request_size=2 * GIANT)
    taken = 0
    for record in records:
        sent = producer.send(
            topic,
            key=record.key,
            value=record.value,
            headers=list(record.headers),
            timestamp_ms=record.timestamp_ms,
        )
        try:
            sent.get(timeout=30)
        except (MessageSizeTooLargeError, RecordListTooLargeError, InvalidTimestampError):
            producer.close()
            producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, max_request_size=2 * GIANT)
        else:
            taken += 1
    producer.close()
    return taken


def dead_letters(kafka: KafkaSettings) -> Counter[str]:
    """How many of each topic there are, each position counted once."""
    notes = [headers for _, _, headers in read(kafka.bootstrap, kafka.dead_letters_topic)]
    places = {tuple(note[f"ratchet-{part}"] for part in ("topic", "partition", "offset")) for note in notes}
    return Counter(topic.decode() for topic, _, _ in places)


@pytest.mark.nightly
async def test_every_role_goes_on_behind_hostile_records_of_its_topics(kafka: KafkaSettings, tmp_path: Path) -> None:
    store = StoreSettings(path=tmp_path / "store.duckdb", port=free_port(), batch_s=0.1)
    stop = asyncio.Event()
    roles: list[Coroutine[Any, Any, None]] = [
        record_role.serve(kafka, store, HoldoutSettings(), stop),
        assemble_role.serve(kafka, AssemblySettings(path=tmp_path / "assembly.sqlite", port=free_port()), stop),
        branch_role.serve(kafka, BranchingSettings(policy_url="http://127.0.0.1:1", policy_patience_s=1), stop),
    ]
    await asyncio.to_thread(create_topics, kafka)
    topics = (
        *(kafka.events_topic, kafka.transitions_topic, kafka.spans_topic, kafka.calls_topic, kafka.branches_topic),
    )
    refused = {topic: await asyncio.to_thread(publish, kafka, topic, *GARBAGE) for topic in topics}
    forged = [Hostile(request(task, verdict)) for task in TASKS for verdict in ("trusted", "failed")]
    await asyncio.to_thread(publish, kafka, kafka.branches_topic, *forged)
    good = [event.to_json() for event in episode("good", steps=3)]
    await asyncio.to_thread(publish, kafka, kafka.events_topic, *[Hostile(value, b"good") for value in good])

    running = [asyncio.create_task(role) for role in roles]
    async with StoreClient(f"http://127.0.0.1:{store.port}") as client:

        async def is_done() -> bool:
            for role in running:
                if role.done():
                    role.result()
            status = await client.status()
            # Each forged request has one step, so one answer; the good episode may have its own by now.
            answered = status.branches.states + status.recoveries.episodes
            read_on = all(
                sum(status.positions.get(topic, {}).values()) == sum(end_offsets(kafka.bootstrap, topic).values())
                for topic in (kafka.events_topic, kafka.transitions_topic)
            )
            return answered >= len(forged) and read_on and dead_letters(kafka) == refused

        await eventually(lambda: answers(client), "the record role answers")
        await eventually(is_done, lambda: f"the dead letters {dead_letters(kafka)} are {refused}", within_s=100)
        status = await client.status()
    assert sum(status.events.values()) == len(good)
    assert not any(role.done() for role in running)
    stop.set()
    async with asyncio.timeout(90):
        await asyncio.gather(*running)
