"""A running cluster of each kind, and topics on it for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.kafka.broker import EmbeddedBroker
from streams.kafka.settings import KafkaSettings
from tests.builders.topics import with_own_topics
from tests.kafka_node import KafkaNode

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session", params=["tansu", pytest.param("apache-kafka", marks=pytest.mark.nightly)])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSettings]:
    """A running cluster, and the shortest session it allows: groups wait that long for a member that was killed."""
    if request.param == "tansu":
        with EmbeddedBroker() as broker:
            yield KafkaSettings(bootstrap=broker.bootstrap, session_timeout_s=2)
        return
    node = KafkaNode(tmp_path_factory.mktemp("kafka"))
    node.start()
    yield KafkaSettings(bootstrap=node.bootstrap, session_timeout_s=6)
    node.kill()


@pytest.fixture
def kafka(cluster: KafkaSettings) -> KafkaSettings:
    """Topics and consumer groups of this test's own."""
    return with_own_topics(cluster.model_copy(update={"partitions": 2}))
