"""After `ratchet forget --erase` no topic holds a record of the principal, and what is not deleted is said."""

import asyncio
import json
import os
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.structs import OffsetAndMetadata

from streams.events import StepEvent
from streams.kafka.clients import admin
from streams.kafka.retention import check_retention, first_of, retention_of
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import SEGMENT_MS, create_topics, end_offsets
from streams.messages import assistant
from streams.runtime.processes import free_port
from streams.store.client import StoreClient
from streams.trust.holdout import Split
from tests.builders.captured import conversation
from tests.builders.episodes import HOLDOUT, TASKS, episode
from tests.integration.recording import answers, caught_up, pairs, publisher
from tests.kept_up import RATCHET, ROOT, kept_up
from tests.waiting import eventually

PLANTED, OTHERS = "zanzibar-4711", "of somebody else"


def reads(kafka: KafkaSettings, role: str, *topics: str) -> None:
    """Commit the ends of the topics in the role's consumer group, as the role does when it has done its work."""
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id=f"{kafka.group_prefix}-{role}")
    ends = {
        TopicPartition(topic, partition): OffsetAndMetadata(end, "", -1)
        for topic in topics
        for partition, end in end_offsets(kafka.bootstrap, topic).items()
    }
    consumer.assign(list(ends))
    consumer.commit(ends)
    consumer.close()


def holding(kafka: KafkaSettings, text: str) -> set[str]:
    """The topics with a record that says it."""
    return {topic for topic in kafka.topics if any(text.encode() in value for value, _ in _rest(kafka, topic))}


def _rest(kafka: KafkaSettings, topic: str) -> list[tuple[bytes, dict[str, str]]]:
    ends = end_offsets(kafka.bootstrap, topic)
    first = first_of(kafka, [(topic, partition) for partition in ends])
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap)
    found = []
    for partition, end in ends.items():
        place = TopicPartition(topic, partition)
        consumer.assign([place])
        consumer.seek(place, first[topic, partition])
        while consumer.position(place) < end:
            for record in (each for of in consumer.poll(1000).values() for each in of):
                found.append((record.value or b"", {name: text.decode() for name, text in record.headers}))
    consumer.close()
    return found


def refused(name: str) -> StepEvent:
    """A step that is not let in, since it may hold a file."""
    (step, *_) = episode(f"{name}-refused")
    assert isinstance(step, StepEvent)
    said = assistant(f"{PLANTED} {'0123456789abcdef' * 60}")
    return step.model_copy(update={"principal": name, "action": said})


@pytest.mark.slow
async def test_no_topic_holds_a_record_of_an_erased_principal_once_everyone_has_read_it(
    kafka: KafkaSettings, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    home, log, port = tmp_path / "home", tmp_path / "record.log", free_port()
    environment = {
        **os.environ,
        "RATCHET_HOME": str(home),
        "RATCHET_KAFKA": kafka.model_dump_json(),
        "RATCHET_STORE__PORT": str(port),
        "RATCHET_HOLDOUT": HOLDOUT.model_dump_json(),
    }

    async def ratchet(*words: str) -> Any:
        command = [*RATCHET, *words, "--json"]
        run = lambda: subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)  # noqa: E731
        done = await asyncio.to_thread(run)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    can_delete = "tansu" not in request.node.name
    with kept_up(environment, log), publisher(kafka) as publish:
        async with StoreClient(f"http://127.0.0.1:{port}") as store:
            await eventually(lambda: answers(store))
            for number, name in enumerate(("stays", "leaves")):
                said = PLANTED if name == "leaves" else "hello"
                publish(kafka.events_topic, pairs(episode(name, TASKS[Split.TRAIN][number], action=said)))
            publish(kafka.events_topic, [("bad", OTHERS.encode()), *pairs([refused("leaves")])])
            chat = conversation(f"tell {PLANTED}", [("One.", "and?")], principal="leaves")
            publish(kafka.calls_topic, [("key", call.to_json()) for call in chat])
            await eventually(lambda: caught_up(store, kafka, kafka.events_topic))
            assert (await store.status()).quarantined == 1
            full = {kafka.events_topic, kafka.branches_topic, kafka.calls_topic, kafka.dead_letters_topic}
            assert await asyncio.to_thread(holding, kafka, PLANTED) == full
            await asyncio.to_thread(reads, kafka, "assemble", kafka.calls_topic)

            first = await ratchet("forget", "--principal", "leaves", "--erase")
            waits = {each["topic"]: each["waits_for"] for each in first["log"]["partitions"] if each["waits_for"]}
            if not can_delete:
                assert set(waits) == full
                told = await ratchet("forget", "--status")
                assert {each["topic"] for each in told[0]["readable"]} == full
                return
            # The branch role has not read the request, which would be lost with all its work.
            assert set(waits) == {kafka.branches_topic}
            assert f"{kafka.group_prefix}-branch" in waits[kafka.branches_topic]
            assert await asyncio.to_thread(holding, kafka, PLANTED) == {kafka.branches_topic}
            told = await ratchet("forget", "--status")
            assert [{each["topic"] for each in status["readable"]} for status in told] == [{kafka.branches_topic}]

            await asyncio.to_thread(reads, kafka, "branch", kafka.branches_topic)
            second = await ratchet("forget", "--principal", "leaves", "--erase")
            assert [each for each in second["log"]["partitions"] if each["waits_for"]] == []
            assert await asyncio.to_thread(holding, kafka, PLANTED) == set()
            told = await ratchet("forget", "--status")
            assert [status["readable"] for status in told] == [[], []]
            # By then Kafka has removed the files of its log as well.
            longest = timedelta(milliseconds=kafka.retention_ms + SEGMENT_MS)
            assert {each["longest_ms"] for each in second["log"]["partitions"]} == {longest / timedelta(milliseconds=1)}

            # What others sent that was refused can be replayed as before, and what comes is stored.
            assert await asyncio.to_thread(holding, kafka, OTHERS) == {kafka.dead_letters_topic}
            listed = await ratchet("dead-letters", "list")
            assert [(each["verdict"], each["size"]) for each in listed] == [("dead-letter", len(OTHERS))]
            publish(kafka.events_topic, pairs(episode("comes", TASKS[Split.TRAIN][2])))
            await eventually(lambda: caught_up(store, kafka, kafka.events_topic))
            stored = await store.query("SELECT DISTINCT episode_id FROM events WHERE episode_id IS NOT NULL ORDER BY 1")
            assert stored["episode_id"].to_pylist() == ["comes", "stays"]
            assert (await store.query("FROM gaps")).num_rows == 0
    assert PLANTED not in log.read_text()


@pytest.mark.slow
def test_a_topic_that_keeps_records_longer_than_the_settings_say_is_named(
    kafka: KafkaSettings, request: pytest.FixtureRequest
) -> None:
    create_topics(kafka)
    assert check_retention(kafka, retention_of(kafka)) == []
    if "tansu" in request.node.name:
        pytest.skip("Tansu does not tell how its topics are configured")
    shorter = kafka.model_copy(update={"raw_retention_h": 1})
    found = check_retention(shorter, retention_of(kafka))
    assert [sentence.split()[0] for sentence in found] == sorted(kafka.topics)
    set_retention(kafka, kafka.events_topic, {"retention.ms": "-1"})
    set_retention(kafka, kafka.calls_topic, {"cleanup.policy": "compact"})
    found = check_retention(kafka, retention_of(kafka))
    assert {sentence.split()[0] for sentence in found} == {kafka.events_topic, kafka.calls_topic}
    endless = {each.topic for each in retention_of(kafka) if each.longest_ms is None}
    assert endless == {kafka.events_topic, kafka.calls_topic}


def set_retention(kafka: KafkaSettings, topic: str, values: dict[str, str]) -> None:
    with admin("test", kafka.bootstrap, kafka.security) as client:
        client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=values)])
