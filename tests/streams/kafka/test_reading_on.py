"""What a worker is handed follows without a hole on what it was handed before, whatever a rebalance threw away.

The consumer's network is a double here: a real cluster throws records away only now and then.
"""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import cast

import faust
import pytest
from faust.types import TP

from streams.kafka.faust_overrides import BundlingConsumer
from streams.kafka.records import Received
from streams.kafka.settings import KafkaSettings
from streams.kafka.worker import build_app

PARTITION = TP("ratchet.branches", 0)


class Fetched(BundlingConsumer):
    """A consumer that is given what it fetches, in turn, and notes where it is sent."""

    def __init__(self, app: faust.App, committed: int, fetches: Sequence[Sequence[int]]) -> None:
        super().__init__(app.transport, _nothing, _nothing, _nothing)
        self._given = [[record(offset) for offset in offsets] for offsets in fetches]
        self._committed = committed
        self.sought: list[int] = []
        self.resume_flow()

    async def seek_to_committed(self) -> Mapping[TP, int]:
        return {PARTITION: self._committed}

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        self.sought.extend(partitions.values())

    def assignment(self) -> set[TP]:
        return {PARTITION}

    async def _wait_next_records(  # the signature is Faust's
        self,
        timeout: float,  # noqa: ASYNC109
    ) -> tuple[dict[TP, list[SimpleNamespace]], None]:
        return ({PARTITION: self._given.pop(0)}, None)

    async def handed(self) -> list[int]:
        """The offsets that the next fetch hands on."""
        bundles = [cast(list[Received], message.value) async for _, message in self.getmany(0.0)]
        return [received.offset for bundle in bundles for received in bundle]


async def _nothing(*_: object) -> None:
    """What Faust does with a message and at a rebalance, which is not the point here."""


def record(offset: int) -> SimpleNamespace:
    return SimpleNamespace(
        offset=offset, key=b"k", value=b"v", headers=(), timestamp=0, timestamp_type=0, serialized_value_size=1
    )


@pytest.fixture
def app() -> faust.App:
    return build_app("test", KafkaSettings(bootstrap="127.0.0.1:9"), bundle=10)


async def test_discarded_records_are_fetched_again(app: faust.App) -> None:
    consumer = Fetched(app, 85, [[88, 89], [85, 86, 87, 88], [89]])
    await consumer.perform_seek()
    assert await consumer.handed() == []
    assert consumer.sought == [85]
    assert await consumer.handed() == [85, 86, 87, 88]
    assert await consumer.handed() == [89]


async def test_offsets_missing_twice_from_the_log_are_skipped(app: faust.App) -> None:
    consumer = Fetched(app, 85, [[85], [90], [90], [91]])
    await consumer.perform_seek()
    assert [await consumer.handed() for _ in range(4)] == [[85], [], [90], [91]]
    assert consumer.sought == [86]


async def test_records_handed_on_before_are_left_out(app: faust.App) -> None:
    consumer = Fetched(app, 85, [[85, 86], [84, 85, 86], [86, 87]])
    await consumer.perform_seek()
    assert [await consumer.handed() for _ in range(3)] == [[85, 86], [], [87]]


async def test_nothing_is_handed_on_before_the_starting_offset_is_known(app: faust.App) -> None:
    consumer = Fetched(app, 85, [[92], [85]])
    assert await consumer.handed() == []
    await consumer.perform_seek()
    assert await consumer.handed() == [85]


async def test_nothing_is_committed_past_what_is_not_acknowledged(app: faust.App) -> None:
    consumer = Fetched(app, 85, [[85, 86], [87, 88]])
    app.topics.acking_topics.add(PARTITION.topic)
    await consumer.perform_seek()
    (first,), (second,) = [[message async for _, message in consumer.getmany(0.0)] for _ in range(2)]
    consumer.ack(second)
    assert consumer._new_offset(PARTITION) is None
    consumer.ack(first)
    assert consumer._new_offset(PARTITION) == 89
