"""What no role had read outlives the embedded broker: it is kept in a file, and the next broker has it."""

from pathlib import Path

from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata

from streams.kafka.broker import EmbeddedBroker
from streams.kafka.clients import producer
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics
from streams.kafka.unread import keep_unread, publish_kept
from tests.builders.published import read

HEADERS = [("ratchet-signature", b"\x00\xff")]


def test_what_was_not_read_is_there_again_at_the_next_broker(tmp_path: Path) -> None:
    path = tmp_path / "home" / "unread.jsonl"
    with EmbeddedBroker() as broker:
        kafka = KafkaSettings(bootstrap=broker.bootstrap, partitions=2)
        create_topics(kafka)
        with producer("test", kafka.bootstrap, kafka.security) as client:
            for partition in range(2):
                for number in range(3):
                    value = f"{partition}-{number}".encode()
                    client.send(kafka.events_topic, key=b"key", value=value, headers=HEADERS, partition=partition)
            client.send(kafka.calls_topic, key=None, value=b"call")
            client.send(kafka.dead_letters_topic, key=b"no", value=b"dead")
        acknowledge(kafka, "record", kafka.events_topic, 0, 2)
        assert keep_unread(kafka, path) == 5
    assert path.stat().st_mode & 0o077 == 0
    with EmbeddedBroker() as broker:
        kafka = kafka.model_copy(update={"bootstrap": broker.bootstrap})
        assert publish_kept(kafka, path) == 5
        assert not path.exists()
        assert publish_kept(kafka, path) == 0
        found = read(kafka.bootstrap, kafka.events_topic)
        assert sorted(value for _, value, _ in found) == [b"0-2", b"1-0", b"1-1", b"1-2"]
        assert {(key, *headers.items()) for key, _, headers in found} == {(b"key", *HEADERS)}
        assert [value for _, value, _ in read(kafka.bootstrap, kafka.calls_topic)] == [b"call"]


def test_where_everything_was_read_there_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "unread.jsonl"
    with EmbeddedBroker() as broker:
        kafka = KafkaSettings(bootstrap=broker.bootstrap, partitions=1)
        assert keep_unread(kafka, path) == 0  # no role has made a topic yet
        create_topics(kafka)
        with producer("test", kafka.bootstrap, kafka.security) as client:
            client.send(kafka.calls_topic, key=None, value=b"call")
        acknowledge(kafka, "assemble", kafka.calls_topic, 0, 1)
        assert keep_unread(kafka, path) == 0
    assert not path.exists()


def acknowledge(kafka: KafkaSettings, role: str, topic: str, partition: int, offset: int) -> None:
    """Commit an offset in the role's group, as the role does when it has done its work."""
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id=f"{kafka.group_prefix}-{role}")
    consumer.assign([TopicPartition(topic, partition)])
    consumer.commit({TopicPartition(topic, partition): OffsetAndMetadata(offset, "", -1)})
    consumer.close()
