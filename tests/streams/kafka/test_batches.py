"""Batches that cannot be read, and what transactions leave in the log, stop no worker and lose nothing silently."""

import asyncio
import gzip
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import kafka.record.default_records as written
import lz4.frame
import pytest
import zstandard
from kafka import KafkaProducer

from ratchet_client.errors import ConfigurationError
from ratchet_client.ids import uuid7
from streams.intake.role import serve
from streams.kafka import decompression
from streams.kafka.decompression import decompress
from streams.kafka.records import Received
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import end_offsets
from streams.kafka.worker import build_app, consume, run
from streams.runtime.processes import free_port
from streams.store.client import StoreClient
from streams.store.settings import StoreSettings
from streams.trust.holdout import HoldoutSettings
from tests.builders.episodes import episode
from tests.builders.published import read
from tests.waiting import eventually

Compress = Callable[[bytes], bytes]
ENCODERS = {codec: f"{codec}_encode" for codec in ("gzip", "lz4", "snappy", "zstd")}


def damaged(compress: Compress) -> Compress:
    """The codec, with some bytes of what it gives overwritten."""

    def encode(payload: bytes) -> bytes:
        content = bytearray(compress(payload))
        content[len(content) // 2 :] = b"\xff" * (len(content) - len(content) // 2)
        return bytes(content)

    return encode


def publish(kafka: KafkaSettings, codec: str | None, *values: bytes, encode: Compress | None = None) -> None:
    """Publish values as one batch."""
    with pytest.MonkeyPatch.context() as patch:
        if codec and encode:
            patch.setattr(written, ENCODERS[codec], encode)
        producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, compression_type=codec, linger_ms=200)
        for future in [producer.send(kafka.events_topic, value=value) for value in values]:
            future.get(timeout=30)
        producer.close()


async def received(kafka: KafkaSettings, until: bytes) -> list[Received]:
    """Everything that a worker is handed up to the value `until`."""
    found: list[Received] = []
    stop = asyncio.Event()

    async def keep(records: list[Received]) -> None:
        found.extend(records)
        if any(record.value == until for record in records):
            stop.set()

    app = build_app("test", kafka, bundle=100)
    consume(app, kafka.events_topic, keep)
    async with asyncio.timeout(60):
        await run(app, stop)
    return found


@asynccontextmanager
async def recording(kafka: KafkaSettings, folder: Path) -> AsyncIterator[StoreClient]:
    """A record role in this process, which must not end by itself."""
    settings = StoreSettings(path=folder / "store.duckdb", port=free_port(), batch_s=0.1)
    stop = asyncio.Event()
    role = asyncio.create_task(serve(kafka, settings, HoldoutSettings(), stop))
    async with StoreClient(f"http://127.0.0.1:{settings.port}") as client:
        yield client
    assert not role.done()
    stop.set()
    await asyncio.wait_for(role, 60)


async def read_up_to_the_end(kafka: KafkaSettings, client: StoreClient) -> None:
    async def at_the_end() -> bool:
        return (await client.status()).positions.get(kafka.events_topic) == end_offsets(
            kafka.bootstrap, kafka.events_topic
        )

    await eventually(at_the_end, "everything is read", within_s=60, errors=(Exception,))


@pytest.mark.nightly
@pytest.mark.parametrize("codec", ENCODERS)
async def test_a_batch_that_cannot_be_decompressed_is_handed_on_as_one_record_that_says_why(
    kafka: KafkaSettings, codec: str
) -> None:
    publish(kafka, codec, b"before " * 20)
    publish(kafka, codec, *[b"lost %d " % n * 20 for n in range(3)], encode=damaged(getattr(written, ENCODERS[codec])))
    publish(kafka, codec, b"after")
    before, broken, after = await received(kafka, b"after")
    assert (before.value, before.unreadable) == (b"before " * 20, None)
    assert (broken.offset, broken.follows) == (3, 1)
    assert broken.unreadable is not None
    assert broken.unreadable.startswith(f"the batch (compressed by {codec}) of offsets 1 to 3 is broken")
    assert broken.value is not None
    assert b"\xff\xff" in broken.value
    assert (after.value, after.offset) == (b"after", 4)


@pytest.mark.slow
async def test_the_record_role_goes_on_behind_a_broken_batch_and_keeps_it_as_a_dead_letter(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    events = [event.to_json() for event in episode("good", steps=3)]
    async with recording(kafka, tmp_path) as client:
        await asyncio.to_thread(publish, kafka, "zstd", *events[:2])
        await asyncio.to_thread(publish, kafka, "lz4", b"x" * 99, b"y" * 99, encode=damaged(written.lz4_encode))
        await asyncio.to_thread(publish, kafka, "snappy", *events[2:])
        await read_up_to_the_end(kafka, client)
        status = await client.status()
        assert sum(status.events.values()) == len(events)
        assert (status.dead_letters, status.gaps) == (1, 0)
    ((_, value, headers),) = read(kafka.bootstrap, kafka.dead_letters_topic)
    assert b"\xff\xff" in value
    assert headers["ratchet-offset"] == b"3"
    assert b"compressed by lz4) of offsets 2 to 3 is broken" in headers["ratchet-error"]


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("codec", "module", "package"),
    [("lz4", "lz4.frame", "lz4"), ("snappy", "cramjam", "cramjam"), ("zstd", "zstandard", "zstandard")],
)
async def test_a_codec_that_is_not_installed_is_named_with_the_batch_and_the_package(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch, codec: str, module: str, package: str
) -> None:
    publish(kafka, codec, b"one " * 20, b"two " * 20)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, module, None)
        with pytest.raises(ConfigurationError) as raised:
            await received(kafka, b"after")
    assert f"{kafka.events_topic}/0/0 cannot be read: the codec {codec} is not installed" in str(raised.value)
    assert f"pip install {package}" in str(raised.value)
    assert "BOOTSTRAP" not in str(raised.value)
    publish(kafka, None, b"after")
    values = [record.value for record in await received(kafka, b"after")]
    assert values == [b"one " * 20, b"two " * 20, b"after"]


@pytest.mark.parametrize(
    ("number", "compress"),
    [(1, gzip.compress), (3, lz4.frame.compress), (4, zstandard.ZstdCompressor().compress)],
    ids=["gzip", "lz4", "zstd"],
)
def test_decompression_is_bounded(number: int, compress: Compress) -> None:
    assert decompress(number, compress(bytes(1000)), most=1000) == bytes(1000)
    with pytest.raises(ValueError, match="more than 999 bytes"):
        decompress(number, compress(bytes(1000)), most=999)


async def test_a_small_batch_that_stands_for_too_much_is_not_decompressed(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompression, "MAX_BATCH_BYTES", 10_000)
    publish(kafka, "gzip", bytes(20_000))
    publish(kafka, None, b"after")
    broken, after = await received(kafka, b"after")
    assert broken.unreadable is not None
    assert "more than 10000 bytes" in broken.unreadable
    assert after.value == b"after"


def transaction(kafka: KafkaSettings, *values: bytes, commit: bool = True) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=uuid7())
    producer.init_transactions()
    producer.begin_transaction()
    for value in values:
        producer.send(kafka.events_topic, value=value).get(timeout=30)
    if commit:
        producer.commit_transaction()
    else:
        producer.abort_transaction()
    producer.close()


@pytest.mark.slow
async def test_markers_of_transactions_are_not_gaps_and_do_not_stop_the_record_role(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    events = [event.to_json() for event in episode("steady", steps=11)]
    # Before the role starts, so that the first fetch has them in its middle; and after it, each on its own.
    for number in range(0, 6, 2):
        await asyncio.to_thread(transaction, kafka, *events[number : number + 2])
    async with recording(kafka, tmp_path) as client:
        for number in range(6, 10, 2):
            await asyncio.to_thread(transaction, kafka, *events[number : number + 2])
        await asyncio.to_thread(publish, kafka, None, *events[10:])
        await read_up_to_the_end(kafka, client)
        status = await client.status()
    assert sum(status.events.values()) == len(events)
    assert (status.dead_letters, status.gaps, status.duplicates) == (0, 0, 0)
