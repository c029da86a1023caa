"""The embedded broker and the topics on it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kafka import KafkaProducer

from ratchet_client.errors import BrokerError
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import cluster_id, create_topics, end_offsets
from tests.waiting import until


@pytest.mark.slow
def test_topics_get_the_configured_partitions_and_may_exist_already() -> None:
    with EmbeddedBroker() as broker:
        kafka = KafkaSettings(bootstrap=broker.bootstrap, partitions=3)
        create_topics(kafka)
        create_topics(kafka)
        for topic in kafka.topics:
            assert end_offsets(broker.bootstrap, topic) == {0: 0, 1: 0, 2: 0}


def test_end_offsets_count_every_record_of_a_batch() -> None:
    with EmbeddedBroker() as broker:
        kafka = KafkaSettings(bootstrap=f"kafka://{broker.bootstrap}", partitions=2)
        create_topics(kafka)
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap, linger_ms=100)
        for number in range(1000):
            producer.send(kafka.events_topic, key=str(number).encode(), value=b"x")
        producer.close()
        assert sum(end_offsets(kafka.bootstrap, kafka.events_topic).values()) == 1000
        with pytest.raises(BrokerError, match="no topic"):
            end_offsets(kafka.bootstrap, "ratchet.nothing")


def test_each_start_of_the_broker_has_another_cluster_id() -> None:
    ids = set()
    for _ in range(2):
        with EmbeddedBroker() as broker:
            ids.add(cluster_id(broker.bootstrap))
    assert len(ids) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent: run it there")
def test_the_broker_ends_with_the_process_that_started_it() -> None:
    script = (
        "from streams.kafka.broker import EmbeddedBroker; import time\n"
        "broker = EmbeddedBroker(); broker.start(); print(broker.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    broker = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    until(lambda: not Path(f"/proc/{broker}").exists(), "the broker ends")
