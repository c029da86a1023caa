"""After `ratchet forget --erase` no topic holds a record of the principal, and what is not deleted is said."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import chain
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.structs import OffsetAndMetadata

from daemon.erasure.carrying_out import carry_out
from daemon.erasure.log_records import erase_from_log, log_erasures, readable
from daemon.erasure.request import ErasureRequest, ask
from ratchet_client.events import StepEvent
from ratchet_client.ids import uuid7
from ratchet_client.messages import assistant
from streams.intake import role as record_role
from streams.kafka.clients import admin, batches_until
from streams.kafka.dead_letters import read_dead_letters
from streams.kafka.retention import check_retention, first_of, retention_of
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import SEGMENT_MS, create_topics, end_offsets
from streams.runtime.processes import free_port
from streams.store.client import StoreClient
from streams.store.settings import StoreSettings
from streams.trust.holdout import Split
from tests.builders.captured import conversation
from tests.builders.episodes import HOLDOUT, TASKS, episode
from tests.integration.recording import UNLIMITED, answers, caught_up, pairs, publisher
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
        for record in chain.from_iterable(batches_until(consumer, {place: end})):
            found.append((record.value or b"", {name: text.decode() for name, text in record.headers}))
    consumer.close()
    return found


def refused(name: str) -> StepEvent:
    """A step that is not let in, since it may hold a file."""
    (step, *_) = episode(f"{name}-refused")
    assert isinstance(step, StepEvent)
    said = assistant(f"{PLANTED} {'0123456789abcdef' * 60}")
    return step.model_copy(update={"principal": name, "action": said})


@asynccontextmanager
async def recording(kafka: KafkaSettings, store: StoreSettings) -> AsyncIterator[StoreClient]:
    """The record role, and a client of it."""
    stop = asyncio.Event()
    role = asyncio.create_task(record_role.serve(kafka, store, HOLDOUT, stop, UNLIMITED))
    async with StoreClient(f"http://127.0.0.1:{store.port}") as client:
        await eventually(lambda: answers(client), within_s=120)
        yield client
        stop.set()
        await role


@pytest.mark.nightly
async def test_no_topic_holds_a_record_of_an_erased_principal_once_everyone_has_read_it(
    kafka: KafkaSettings, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    home, store = tmp_path / "home", StoreSettings(path=tmp_path / "home" / "store.duckdb", port=free_port())
    full = {kafka.events_topic, kafka.branches_topic, kafka.calls_topic, kafka.dead_letters_topic}
    with publisher(kafka) as publish:
        async with recording(kafka, store) as client:
            for number, name in enumerate(("stays", "leaves")):
                said = PLANTED if name == "leaves" else "hello"
                publish(kafka.events_topic, pairs(episode(name, TASKS[Split.TRAIN][number], action=said)))
            publish(kafka.events_topic, [("bad", OTHERS.encode()), *pairs([refused("leaves")])])
            chat = conversation(f"tell {PLANTED}", [("One.", "and?")], principal="leaves")
            await asyncio.to_thread(create_topics, kafka)
            publish(kafka.calls_topic, [("key", call.to_json()) for call in chat])
            await eventually(lambda: caught_up(client, kafka, kafka.events_topic))
            assert (await client.status()).quarantined == 1
            assert await asyncio.to_thread(holding, kafka, PLANTED) == full

        erasure = ErasureRequest(principal="leaves", actor="anna")
        ask(home, erasure)
        await asyncio.to_thread(carry_out, home, store)
        await asyncio.to_thread(reads, kafka, "assemble", kafka.calls_topic)
        async with recording(kafka, store) as client:
            first = await erase_from_log(kafka, False, home, client, erasure.erasure_id, 5.0)
            waits = {each.topic: each.waits_for for each in first.partitions if each.waits_for}
            assert log_erasures(home) == [first]
            if "tansu" in request.node.name:
                assert set(waits) == full
                assert {each.topic for each in readable(kafka, first)} == full
                as_embedded = await erase_from_log(kafka, True, home, client, erasure.erasure_id, 5.0)
                assert {each.topic for each in as_embedded.partitions if each.waits_for} == full
                # Another broker answers in its place after a restart of Ratchet.
                assert readable(kafka, as_embedded.model_copy(update={"cluster": "of before"})) == []
                return
            # The branch role has not read the request, and would lose with it all that others asked for.
            assert set(waits) == {kafka.branches_topic}
            assert f"{kafka.group_prefix}-branch" in str(waits[kafka.branches_topic])
            assert await asyncio.to_thread(holding, kafka, PLANTED) == {kafka.branches_topic}
            assert {each.topic for each in readable(kafka, first)} == {kafka.branches_topic}

            await asyncio.to_thread(reads, kafka, "branch", kafka.branches_topic)
            second = await erase_from_log(kafka, False, home, client, uuid7(), 30.0)
            assert [each for each in second.partitions if each.waits_for] == []
            assert await asyncio.to_thread(holding, kafka, PLANTED) == set()
            assert [readable(kafka, each) for each in log_erasures(home)] == [[], []]
            # By then Kafka has removed the files of its log as well.
            assert {each.longest_ms for each in second.partitions} == {kafka.retention_ms + SEGMENT_MS}
            assert second.gone_at is not None
            assert second.gone_at - second.at > timedelta(milliseconds=kafka.retention_ms + SEGMENT_MS)

            # What others sent that was refused can be replayed as before, and what comes is stored.
            assert await asyncio.to_thread(holding, kafka, OTHERS) == {kafka.dead_letters_topic}
            listed = await asyncio.to_thread(read_dead_letters, kafka, lambda _, __: None)
            assert [(each.verdict, each.size) for each in listed] == [("dead-letter", len(OTHERS))]
            publish(kafka.events_topic, pairs(episode("comes", TASKS[Split.TRAIN][2])))
            await eventually(lambda: caught_up(client, kafka, kafka.events_topic))
            stored = await client.query(
                "SELECT DISTINCT episode_id FROM events WHERE episode_id IS NOT NULL ORDER BY 1"
            )
            assert stored["episode_id"].to_pylist() == ["comes", "stays"]
            assert (await client.query("FROM gaps")).num_rows == 0


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
