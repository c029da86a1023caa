"""The topics of the log: made when a role starts, measured when somebody wants to know that nothing is missing."""

import time
from collections.abc import Sequence
from contextlib import suppress

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import TopicAlreadyExistsError

from ratchet_client.errors import BrokerError
from ratchet_client.kafka.security import KafkaSecurity
from streams.kafka.clients import FETCH_TIMEOUT_S, admin, consumer, poll
from streams.kafka.settings import KafkaSettings

MAX_DEAD_LETTER_BYTES = 16 * 2**20
MAX_CALL_BYTES = 16 * 2**20
SEGMENT_MS = 24 * 3_600_000
PLAINTEXT = KafkaSecurity()


def create_topics(kafka: KafkaSettings, topics: Sequence[str] | None = None) -> None:
    """Make those of `topics`, by default all of the settings, that do not exist yet.

    Raises `BrokerError` when the cluster cannot be reached or refuses.
    """
    with admin("topics", kafka.bootstrap, kafka.security) as client:
        for topic in kafka.topics if topics is None else topics:
            try:
                client.create_topics(
                    [
                        NewTopic(
                            topic,
                            num_partitions=kafka.partitions,
                            replication_factor=kafka.replication,
                            topic_configs=_configuration(kafka, topic),
                        )
                    ],
                    wait_for_metadata=True,
                )
            except TopicAlreadyExistsError:
                continue


def _configuration(kafka: KafkaSettings, topic: str) -> dict[str, str]:
    configuration = {
        "cleanup.policy": "delete",
        "retention.ms": str(kafka.retention_ms),
        # Records go with the file of the log that they are in, and that goes with its last record.
        "segment.ms": str(min(kafka.retention_ms, SEGMENT_MS)),
    }
    if topic == kafka.dead_letters_topic:
        # With the headers that say why, a dead-letter record is larger than the record that was let in elsewhere.
        configuration["max.message.bytes"] = str(MAX_DEAD_LETTER_BYTES)
    if topic == kafka.calls_topic:
        # A call repeats all that was said before it.
        configuration["max.message.bytes"] = str(MAX_CALL_BYTES)
    return configuration


def cluster_id(bootstrap: str, security: KafkaSecurity = PLAINTEXT) -> str:
    """The cluster's own name for itself: another id under the same address means another log.

    Raises `BrokerError` when the cluster cannot be reached.
    """
    with admin("topics", bootstrap, security) as client:
        return str(client.describe_cluster()["cluster_id"])


def end_offsets(bootstrap: str, topic: str, security: KafkaSecurity = PLAINTEXT) -> dict[int, int]:
    """Per partition of `topic`, the offset that the next record will get.

    Raises `BrokerError` when the cluster cannot be reached or has no such topic.
    """
    with consumer("topics", bootstrap, security) as client:
        found = client.partitions_for_topic(topic)
        if not found:
            raise BrokerError(f"the cluster at {bootstrap} has no topic {topic}; start the record role once")
        return _high_watermarks(client, [TopicPartition(topic, partition) for partition in found])


def _high_watermarks(client: KafkaConsumer, partitions: list[TopicPartition]) -> dict[int, int]:
    # Tansu's ListOffsets counts its last batch as one record; what a fetch reports is right on every broker.
    client.assign(partitions)
    client.seek_to_end(*partitions)
    deadline = time.monotonic() + FETCH_TIMEOUT_S
    while time.monotonic() < deadline:
        with suppress(BrokerError):  # a record that has just come, and cannot be read: the end is known all the same
            poll(client, 100, 1)
        ends = {partition.partition: client.highwater(partition) for partition in partitions}
        if None not in ends.values():
            return ends
    raise BrokerError(f"{partitions[0].topic}: no end offsets within {FETCH_TIMEOUT_S:.0f} s; is the cluster healthy?")
