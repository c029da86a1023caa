"""Producers compress as they like: the record role stores what each codec of Kafka holds."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from kafka import KafkaProducer

from streams.kafka.settings import KafkaSettings
from streams.store.client import StoreClient
from tests.builders.episodes import episode
from tests.integration.recording import Pairs, answers, caught_up, pairs, recorder_of
from tests.waiting import eventually

CODECS = ("gzip", "lz4", "snappy", "zstd")


@pytest.fixture
async def client(kafka: KafkaSettings, tmp_path: Path) -> AsyncIterator[StoreClient]:
    with recorder_of(kafka, tmp_path) as recorder:
        recorder.start()
        async with StoreClient(recorder.url) as store:
            await eventually(lambda: answers(store))
            yield store


def by_kafka_python(kafka: KafkaSettings, codec: str, events: Pairs) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, compression_type=codec, linger_ms=100)
    for future in [producer.send(kafka.events_topic, key=key.encode(), value=value) for key, value in events]:
        future.get(timeout=60)
    producer.close()


async def by_aiokafka(kafka: KafkaSettings, codec: str, events: Pairs) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, compression_type=codec, linger_ms=100) as producer:
        sent = [await producer.send(kafka.events_topic, key=key.encode(), value=value) for key, value in events]
        await asyncio.gather(*sent)


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
