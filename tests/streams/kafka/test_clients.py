"""What every client of the cluster has in common."""

import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from itertools import chain
from typing import Any

import aiokafka.errors as aiokafka_errors
import kafka.errors as kafka_errors
import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from kafka.record import default_records

from ratchet_client.errors import BrokerError
from ratchet_client.kafka.connection import connect_producer
from ratchet_client.kafka.remedies import remedy_for
from ratchet_client.kafka.security import KafkaSecurity
from streams.kafka import clients
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.dead_letters import read_dead_letters
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics

Open = Callable[[str], AbstractContextManager[Any]]
PLAINTEXT = KafkaSecurity()


@pytest.mark.parametrize(
    "open_client",
    [
        lambda bootstrap: clients.admin("test", bootstrap, PLAINTEXT),
        lambda bootstrap: clients.consumer("test", bootstrap, PLAINTEXT),
        lambda bootstrap: clients.producer("test", bootstrap, PLAINTEXT),
        lambda bootstrap: closing(connect_producer(KafkaProducer, "test", bootstrap, PLAINTEXT)),
    ],
    ids=["admin", "consumer", "producer", "kept producer"],
)
def test_no_cluster_is_a_broker_error_that_names_the_address_and_the_setting(
    open_client: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratchet_client.kafka.connection.BOOTSTRAP_TIMEOUT_MS", 300)
    with (
        pytest.raises(BrokerError, match=r"127\.0\.0\.1:1 .*check RATCHET_KAFKA__BOOTSTRAP"),
        open_client("127.0.0.1:1"),
    ):
        pytest.fail("a client of no cluster")


def test_an_error_of_the_cluster_ends_with_the_remedy_that_its_user_knows() -> None:
    with (
        EmbeddedBroker() as broker,
        pytest.raises(BrokerError, match=r"MessageSizeTooLargeError.*; send less"),
        clients.producer("test", broker.bootstrap, PLAINTEXT, "send less", max_request_size=10) as producer,
    ):
        producer.send("topic", b"more than ten bytes").get(5)


def test_records_that_never_come_are_not_waited_for() -> None:
    with EmbeddedBroker() as broker:
        kafka = KafkaSettings(bootstrap=broker.bootstrap, partitions=1)
        create_topics(kafka)
        place = TopicPartition(kafka.calls_topic, 0)
        with clients.producer("test", kafka.bootstrap, PLAINTEXT) as producer:
            producer.send(place.topic, value=b"the only one", partition=0).get(30)
        with clients.consumer("test", kafka.bootstrap, PLAINTEXT) as consumer:
            consumer.assign([place])
            consumer.seek(place, 0)
            found = chain.from_iterable(clients.batches_until(consumer, {place: 2}, patience_s=1.0))
            assert next(found).value == b"the only one"
            with pytest.raises(BrokerError, match=f"{place.topic}/0 gives nothing for 1 s"):
                next(found)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (kafka_errors.TopicAuthorizationFailedError("ratchet.events"), "kafka-acls"),
        (kafka_errors.GroupAuthorizationFailedError("ratchet-record"), "kafka-acls"),
        (kafka_errors.SaslAuthenticationFailedError(), r"kafka\.security: its mechanism, username and password"),
        (kafka_errors.UnknownTopicOrPartitionError(), "create the topic"),
        (kafka_errors.MessageSizeTooLargeError(), r"max\.message\.bytes"),
        (kafka_errors.UnsupportedVersionError(), "upgrade the brokers"),
        (kafka_errors.CorruptRecordError(), "disks"),
        (kafka_errors.UnsupportedCodecError("Libraries for lz4"), "pip install"),
        (kafka_errors.InvalidReplicationFactorError(), r"kafka\.replication"),
        (kafka_errors.KafkaConnectionError(), "check RATCHET_KAFKA__BOOTSTRAP"),
        (kafka_errors.KafkaTimeoutError(), "check RATCHET_KAFKA__BOOTSTRAP"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_only_a_cluster_that_does_not_answer_is_blamed_on_its_address(error: KafkaError, remedy: str) -> None:
    with (
        EmbeddedBroker() as broker,
        pytest.raises(BrokerError, match=remedy) as raised,
        clients.admin("test", broker.bootstrap, PLAINTEXT),
    ):
        raise error
    assert ("BOOTSTRAP" in str(raised.value)) == ("BOOTSTRAP" in remedy)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("TopicAuthorizationFailedError", "kafka-acls"),
        ("GroupAuthorizationFailedError", "kafka-acls"),
        ("SaslAuthenticationFailed", "username"),
        ("AuthenticationFailedError", "username"),
        ("UnknownTopicOrPartitionError", "create the topic"),
        ("MessageSizeTooLargeError", "max.message.bytes"),
        ("RecordTooLargeError", "max.message.bytes"),
        ("CorruptRecordException", "disks"),
        ("UnsupportedCodecError", "pip install"),
        ("UnsupportedVersionError", "upgrade the brokers"),
    ],
)
def test_the_workers_client_has_the_same_remedies(name: str, remedy: str) -> None:
    error: Exception = getattr(aiokafka_errors, name)("ratchet.events")
    assert remedy in remedy_for(error)


def test_an_error_of_tls_is_found_behind_the_one_it_caused() -> None:
    error = kafka_errors.KafkaConnectionError()
    error.__cause__ = ssl.SSLCertVerificationError("self-signed certificate")
    assert "cafile" in remedy_for(error)


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
def test_a_batch_that_a_command_cannot_decompress_is_an_error_that_names_its_place(
    kafka: KafkaSettings, codec: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(default_records, f"{codec}_encode", lambda _: b"\xff" * 40)
        producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, compression_type=codec)
        producer.send(kafka.dead_letters_topic, value=bytes(100)).get(30)
        producer.close()
    with pytest.raises(BrokerError, match=f"{kafka.dead_letters_topic}/0/0 cannot be read") as raised:
        read_dead_letters(kafka, lambda _, __: None)
    assert "BOOTSTRAP" not in str(raised.value)
