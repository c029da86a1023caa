"""What every client of the cluster has in common."""

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from typing import Any

import pytest
from kafka import KafkaProducer

from streams.errors import BrokerError
from streams.kafka import clients
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.settings import KafkaSecurity

Open = Callable[[str], AbstractContextManager[Any]]
PLAINTEXT = KafkaSecurity()


@pytest.mark.parametrize(
    "open_client",
    [
        lambda bootstrap: clients.admin("test", bootstrap, PLAINTEXT),
        lambda bootstrap: clients.consumer("test", bootstrap, PLAINTEXT),
        lambda bootstrap: clients.producer("test", bootstrap, PLAINTEXT),
        lambda bootstrap: closing(clients.connect_producer(KafkaProducer, "test", bootstrap, PLAINTEXT)),
    ],
    ids=["admin", "consumer", "producer", "kept producer"],
)
def test_no_cluster_is_a_broker_error_that_names_the_address_and_the_setting(
    open_client: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.kafka.clients.BOOTSTRAP_TIMEOUT_MS", 300)
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
