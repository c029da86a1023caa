"""A publisher that is closed publishes nothing, and closing it does not wait for a cluster that is away."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from ratchet_client.errors import BrokerError
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.publisher import Publisher
from streams.kafka.records import Outgoing
from streams.kafka.settings import KafkaSettings
from streams.runtime.processes import free_port
from tests.waiting import until

MESSAGE = Outgoing("topic", b"key", b"value")


def publisher(port: int) -> Publisher:
    return Publisher(KafkaSettings(bootstrap=f"127.0.0.1:{port}"), timeout_s=60, max_message_bytes=1000)


def test_a_closed_publisher_does_not_connect() -> None:
    closed = publisher(free_port())
    closed.close()
    with pytest.raises(BrokerError, match="closed"):
        closed.publish([MESSAGE])


def test_a_connection_that_is_being_made_is_not_waited_for_and_publishes_nothing() -> None:
    port = free_port()
    connecting = publisher(port)
    with ThreadPoolExecutor() as threads:
        publishing = threads.submit(connecting.publish, [MESSAGE])
        until(publishing.running)
        until(connecting._lock.locked)
        connecting.close()
        assert not publishing.done()
        with EmbeddedBroker(port), pytest.raises(BrokerError, match="closed"):
            publishing.result(timeout=90)
