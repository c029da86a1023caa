"""Dead-dead-letter record records on a real broker: listed once, replayed whole, and marked."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer

from ratchet_client.errors import BrokerError
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.dead_letters import (
    REPLAYED_FROM_HEADER,
    DeadLetter,
    Position,
    originals,
    read_dead_letters,
    replay,
)
from streams.kafka.records import Outgoing, Received
from streams.kafka.refusals import (
    MOST_BYTES,
    OFFSET_HEADER,
    TOPIC_HEADER,
    VERDICT_HEADER,
    RefusedEvent,
    Unreadable,
    dead_letter_record,
)
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics, end_offsets
from tests.builders.topics import with_own_topics


@pytest.fixture
def kafka(shared_broker: EmbeddedBroker) -> KafkaSettings:
    settings = with_own_topics(KafkaSettings(bootstrap=shared_broker.bootstrap, partitions=2))
    create_topics(settings)
    return settings


def record(kafka: KafkaSettings, offset: int, value: bytes | None = b"{oops", **headers: bytes) -> Received:
    return Received(kafka.events_topic, 0, offset, f"episode-{offset}".encode(), value, tuple(headers.items()))


def refuse(kafka: KafkaSettings, *refused: tuple[Received, Unreadable | RefusedEvent]) -> None:
    publish(kafka, *(dead_letter_record(received, why, kafka.dead_letters_topic) for received, why in refused))


def publish(kafka: KafkaSettings, *messages: Outgoing) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    for message in messages:
        producer.send(message.topic, key=message.key, value=message.value, headers=list(message.headers)).get(10)
    producer.close()


def dead_letters(kafka: KafkaSettings) -> list[DeadLetter]:
    return read_dead_letters(kafka, lambda _, __: None)


def republished(kafka: KafkaSettings) -> Sequence[Any]:
    consumer = KafkaConsumer(
        kafka.events_topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=1500
    )
    found = list(consumer)
    consumer.close()
    return found


def test_a_dead_letter_listing_gives_position_reason_and_size_but_no_content(kafka: KafkaSettings) -> None:
    refuse(
        kafka,
        (record(kafka, 4), Unreadable("record: Invalid JSON")),
        (record(kafka, 7, b"x" * 1000), RefusedEvent("the record has no signature", "ann")),
        (record(kafka, 9, None), Unreadable("the record has no value")),
    )
    found = {dead_letter.position.offset: dead_letter for dead_letter in dead_letters(kafka)}
    assert [(o, found[o].verdict, found[o].error, found[o].size) for o in sorted(found)] == [
        (4, "dead-letter", "record: Invalid JSON", 5),
        (7, "quarantine", "the record has no signature", 1000),
        (9, "dead-letter", "the record has no value", 0),
    ]
    assert found[4].position == Position(kafka.events_topic, 0, 4)
    assert (found[4].key, found[4].replayed, found[4].replay_of) == (b"episode-4", False, None)


def test_a_dead_letter_record_published_twice_by_a_crash_is_listed_once(kafka: KafkaSettings) -> None:
    for _ in range(2):
        refuse(kafka, (record(kafka, 4), Unreadable("wrong")))
    assert len(dead_letters(kafka)) == 1
    assert sum(end_offsets(kafka.bootstrap, kafka.dead_letters_topic).values()) == 2


def test_an_empty_topic_has_no_dead_letter_records_and_a_missing_topic_is_an_error(kafka: KafkaSettings) -> None:
    assert dead_letters(kafka) == []
    with pytest.raises(BrokerError, match="has no topic"):
        dead_letters(kafka.model_copy(update={"dead_letters_topic": "nowhere"}))


def test_a_replay_publishes_value_key_and_headers_unchanged_and_marks_the_record(kafka: KafkaSettings) -> None:
    hostile = record(kafka, 4, b"\xff\x00", trace=b"\x01", **{TOPIC_HEADER: b"elsewhere", OFFSET_HEADER: b"99"})
    refuse(kafka, (hostile, Unreadable("wrong")), (record(kafka, 5), Unreadable("wrong")))
    chosen = [dead_letter for dead_letter in dead_letters(kafka) if dead_letter.position.offset == 4]
    told: list[tuple[int, int]] = []
    assert replay(kafka, chosen, lambda done, total: told.append((done, total))) == 1
    (again,) = republished(kafka)
    assert (again.key, again.value) == (hostile.key, hostile.value)
    assert tuple(again.headers) == (*hostile.headers, (REPLAYED_FROM_HEADER, str(chosen[0].position).encode()))
    assert told == [(1, 1)]
    assert {dead_letter.position.offset: dead_letter.replayed for dead_letter in dead_letters(kafka)} == {
        4: True,
        5: False,
    }


@pytest.mark.slow
def test_a_replayed_record_that_is_refused_again_is_a_new_dead_letter_record_naming_the_first(
    kafka: KafkaSettings,
) -> None:
    refuse(kafka, (record(kafka, 4), Unreadable("wrong")))
    replay(kafka, dead_letters(kafka), lambda _, __: None)
    (again,) = republished(kafka)
    received = Received(again.topic, again.partition, again.offset, again.key, again.value, tuple(again.headers))
    refuse(kafka, (received, Unreadable("still wrong")))
    first, second = dead_letters(kafka)
    assert (first.replayed, first.replay_of) == (True, None)
    assert (second.replayed, second.replay_of) == (False, first.position)
    replay(kafka, [second], lambda _, __: None)
    assert [name for name, _ in republished(kafka)[-1].headers] == [REPLAYED_FROM_HEADER]


@pytest.mark.slow
def test_hundreds_of_dead_letter_records_over_all_partitions_are_replayed_once_each(kafka: KafkaSettings) -> None:
    refuse(kafka, *((record(kafka, n, str(n).encode()), Unreadable("wrong")) for n in range(250)))
    found = dead_letters(kafka)
    assert {dead_letter.place.partition for dead_letter in found} == {0, 1}
    assert replay(kafka, found[:240], lambda _, __: None) == 240
    assert len({again.value for again in republished(kafka)}) == len(republished(kafka)) == 240
    assert [dead_letter.position for dead_letter in dead_letters(kafka) if not dead_letter.replayed] == [
        one.position for one in found[240:]
    ]


def test_a_dead_letter_record_that_names_a_foreign_topic_is_not_replayed(kafka: KafkaSettings) -> None:
    foreign = Received("payments", 0, 3, None, b"pay", ())
    refuse(kafka, (foreign, Unreadable("wrong")))
    with pytest.raises(BrokerError, match="the topic payments"):
        replay(kafka, dead_letters(kafka), lambda _, __: None)


def test_foreign_records_in_the_topic_are_ignored(kafka: KafkaSettings) -> None:
    topic = kafka.dead_letters_topic
    publish(kafka, Outgoing(topic, None, b"hello"), Outgoing(topic, None, b"", ((VERDICT_HEADER, b"dead-letter"),)))
    refuse(kafka, (record(kafka, 4), Unreadable("wrong")))
    (dead_letter,) = dead_letters(kafka)
    assert [original.value for _, original in originals(kafka, [dead_letter])] == [b"{oops"]


@pytest.mark.parametrize("text", ["", "events", "events/0", "events/zero/1", "/0/1", "events/0/-1"])
def test_a_malformed_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a position"):
        Position.parse(text)


def test_a_position_is_read_as_it_is_written() -> None:
    position = Position("tenant/events", 3, 17)
    assert Position.parse(str(position)) == position


def test_a_refused_record_without_key_and_value_can_be_replayed(kafka: KafkaSettings) -> None:
    received = Received(kafka.events_topic, 0, 3, None, None)
    letter = dead_letter_record(received, Unreadable("the record has no value"), kafka.dead_letters_topic)
    publish(kafka, replace(letter, value=letter.body))
    assert replay(kafka, dead_letters(kafka), lambda _, __: None) == 1
    assert [again.replayed for again in dead_letters(kafka)] == [True]


def test_a_refused_record_that_is_too_large_is_named_by_its_place(kafka: KafkaSettings) -> None:
    received = Received(kafka.events_topic, 0, 3, b"key", bytes(MOST_BYTES), (("name", b"1"),))
    letter = dead_letter_record(received, Unreadable("Invalid JSON"), kafka.dead_letters_topic)
    assert letter.value is None
    assert letter.headers[0][0] == VERDICT_HEADER
    publish(kafka, replace(letter, value=letter.body))
    (found,) = dead_letters(kafka)
    assert found.error.startswith(f"Invalid JSON; its {MOST_BYTES + 8} bytes are too many for")
    assert f"{kafka.events_topic}/0/3" in found.error


def test_a_dead_letter_record_of_an_impossible_time_is_listed(kafka: KafkaSettings) -> None:
    letter = dead_letter_record(record(kafka, 4), Unreadable("Invalid JSON"), kafka.dead_letters_topic)
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    producer.send(letter.topic, value=letter.value, headers=list(letter.headers), timestamp_ms=2**62).get(10)
    producer.close()
    assert [found.position.offset for found in dead_letters(kafka)] == [4]
