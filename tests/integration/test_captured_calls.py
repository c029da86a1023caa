"""Captured calls and feedback on a real broker, through the assemble role and the record role, to trusted episodes."""

import asyncio
import signal
from pathlib import Path

import httpx
import pytest

from streams.calls.records import CapturedCall, Feedback
from streams.kafka.publisher import Publisher
from streams.kafka.records import Outgoing
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics
from streams.store.client import StoreClient
from tests.builders.captured import conversation, feedback
from tests.integration.otlp_role import otlp_role_of
from tests.integration.recording import answers, recorder_of
from tests.waiting import eventually, until

TURNS = [("One.", "and?"), ("Two.", "so?"), ("Three.", "bye")]


def outgoing(kafka: KafkaSettings, *records: CapturedCall | Feedback) -> list[Outgoing]:
    return [Outgoing(kafka.calls_topic, b"key", record.to_json()) for record in records]


@pytest.mark.slow
async def test_captured_calls_with_feedback_become_trusted_episodes_over_a_kill(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    chats = [conversation(f"hello {n}", TURNS, principal="ann") for n in range(4)]
    named = conversation("plan", TURNS, principal="ann", episode="case-1")
    words = [feedback(chat[-1], number != 3) for number, chat in enumerate(chats)]
    words.append(feedback("case-1", True, principal="ann"))
    mixed = [each for turn in zip(*chats, named, strict=True) for each in turn]
    publisher = Publisher(kafka, 10, 900_000)
    with otlp_role_of(kafka, tmp_path) as roles, recorder_of(kafka, tmp_path) as recorder:
        await asyncio.to_thread(create_topics, kafka)
        roles.start("store.commit:after@2")
        recorder.start()
        publisher.publish(outgoing(kafka, words[0], *mixed))
        process = roles.process
        assert process is not None
        until(lambda: process.poll() is not None, "it was killed where a decision is durable")
        roles.start()
        publisher.publish(outgoing(kafka, *words, *mixed[:5]))
        async with StoreClient(recorder.url) as store:
            await eventually(lambda: answers(store))

            async def judged() -> bool:
                return sum((await store.status()).events.values()) >= 20

            await eventually(judged, "all events are stored")
            trusted = (await store.query("SELECT episode_id FROM trusted ORDER BY 1")).to_pylist()
            steps = (await store.query("SELECT episode_id, step, receipt FROM transitions")).to_pylist()
        status = (await asyncio.to_thread(httpx.get, f"{roles.assembler_url}/status")).json()
        publisher.close()
        assert roles.end(signal.SIGTERM) == 0
    assert [row["episode_id"] for row in trusted] == sorted([*(chat[0].receipt for chat in chats[:3]), "case-1"])
    expected = {(chat[0].receipt, n, each.receipt) for chat in chats for n, each in enumerate(chat)}
    expected |= {("case-1", n, each.receipt) for n, each in enumerate(named)}
    assert {(row["episode_id"], row["step"], row["receipt"]) for row in steps} == expected
    assert len(steps) == len(expected)
    assert status["unusable_feedback"] == 0
