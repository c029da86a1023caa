"""Producers compress as they like: the record role stores what each codec of Kafka holds."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from kafka import KafkaProducer

from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics
from streams.store.client import StoreClient
from tests.builders.episodes import episode
from tests.builders.published import read
from tests.builders.topics import with_own_topics
from tests.integration.recording import Pairs, answers, caught_up, pairs, recorder_of
from tests.kafka_node import KafkaNode
from tests.waiting import eventually

CODECS = ("gzip", "lz4", "snappy", "zstd")


@pytest.fixture
async def client(kafka: KafkaSettings, tmp_path: Path) -> AsyncIterator[StoreClient]:
    with recorder_of(kafka, tmp_path) as recorder:
        recorder.start()
        async with StoreClient(recorder.url) as store:
            await eventually(lambda: answers(store))
            yield store


def by_kafka_python(kafka: KafkaSettings, codec: str | None, events: Pairs) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, compression_type=codec, linger_ms=100)
    for future in [producer.send(kafka.events_topic, key=key.encode(), value=value) for key, value in events]:
        future.get(timeout=60)
    producer.close()


async def by_aiokafka(kafka: KafkaSettings, codec: str, events: Pairs) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, compression_type=codec, linger_ms=100) as producer:
        sent = [await producer.send(kafka.events_topic, key=key.encode(), value=value) for key, value in events]
        await asyncio.gather(*sent)


@pytest.mark.slow
async def test_batches_of_every_codec_and_client_are_stored(kafka: KafkaSettings, client: StoreClient) -> None:
    for codec in CODECS:
        await asyncio.to_thread(by_kafka_python, kafka, codec, pairs(episode(f"kafka-python-{codec}", steps=9)))
        await by_aiokafka(kafka, codec, pairs(episode(f"aiokafka-{codec}", steps=9)))
    await eventually(lambda: caught_up(client, kafka, kafka.events_topic))
    stored = await client.query("SELECT episode_id, count(*) AS n FROM events GROUP BY ALL ORDER BY ALL")
    clients = ("aiokafka", "kafka-python")
    assert stored.to_pylist() == [{"episode_id": f"{name}-{codec}", "n": 10} for name in clients for codec in CODECS]
    status = await client.status()
    assert (status.duplicates, status.dead_letters, status.gaps) == (0, 0, 0)


@pytest.mark.nightly
async def test_a_batch_that_the_brokers_disk_has_damaged_is_a_dead_letter(tmp_path: Path) -> None:
    node = KafkaNode(tmp_path / "kafka")
    node.start()
    try:
        kafka = with_own_topics(KafkaSettings(bootstrap=node.bootstrap, session_timeout_s=6, partitions=1))
        create_topics(kafka)
        good = pairs(episode("good", steps=4))
        for key, value in (*good[:2], ("key", b"damage me " * 20), *good[2:]):
            await asyncio.to_thread(by_kafka_python, kafka, None, [(key, value)])
        (segment,) = (tmp_path / "kafka").rglob(f"{kafka.events_topic}-0/*.log")
        content = segment.read_bytes()
        with segment.open("r+b") as file:
            file.seek(content.index(b"damage me"))
            file.write(b"damaged!!")
        with recorder_of(kafka, tmp_path) as recorder:
            recorder.start()
            async with StoreClient(recorder.url) as client:
                await eventually(lambda: answers(client))
                await eventually(lambda: caught_up(client, kafka, kafka.events_topic))
                status = await client.status()
        assert sum(status.events.values()) == len(good)
        assert (status.dead_letters, status.gaps) == (1, 0)
        ((_, value, headers),) = read(kafka.bootstrap, kafka.dead_letters_topic)
        assert b"damaged!!" in value
        assert b"its checksum is wrong" in headers["ratchet-error"]
    finally:
        node.kill()
