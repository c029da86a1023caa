"""Agents are killed, and Apache Kafka under them: whatever `publish` returned for with `durable` is in the log."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer
from kafka.admin import NewTopic

from ratchet_client.events import EVENT, Actor, Message, StepEvent, Task
from ratchet_client.producer import Producer
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics, end_offsets
from streams.runtime.processes import die_with_parent
from tests.kafka_node import KafkaNode
from tests.waiting import until

pytestmark = pytest.mark.slow

AGENT = """
import os, sys, time
from itertools import count
from pathlib import Path
from ratchet_client.events import Actor, Message, StepEvent, Task
from ratchet_client.producer import Producer

bootstrap, spool, run = sys.argv[1:]

def step(episode, number):
    return StepEvent(
        episode_id=episode, step=number, agent="a", principal="p", task=Task(environment="e", task_id="t"),
        messages=(Message(role="user", content="?" * 2000),), action=Message(role="assistant", content="!"),
        observation="", actor=Actor(kind="expert"),
    )

with Producer(bootstrap, agent="a", principal="p", spool=Path(spool), durable=True) as producer:
    for number in count(int(run) * 1_000_000):
        for episode in ("long", f"{run}-0", f"{run}-1"):
            event = step(episode, number)
            assert producer.publish(event)
            os.write(1, f"{event.event_id} {episode} {number}\\n".encode())
        time.sleep(0.002)
"""
KILLS = 20
AWAY = {6: 8, 13: 14}  # Kafka is killed under the one agent, and is there again before the other


@pytest.fixture
def node(tmp_path: Path) -> Iterator[KafkaNode]:
    node = KafkaNode(tmp_path / "kafka")
    node.start()
    yield node
    node.kill()


def read(bootstrap: str) -> list[StepEvent]:
    """Every record, in the order of each partition."""
    consumer = KafkaConsumer(
        "ratchet.events", bootstrap_servers=bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=30_000
    )
    records = [next(consumer) for _ in range(sum(end_offsets(bootstrap, "ratchet.events").values()))]
    consumer.close()
    events = [EVENT.validate_json(record.value) for record in records]
    return [event for event in events if isinstance(event, StepEvent)]


@pytest.mark.nightly
def test_killed_agents_on_a_killed_cluster_lose_no_acknowledged_event(node: KafkaNode, tmp_path: Path) -> None:
    create_topics(KafkaSettings(bootstrap=node.bootstrap))
    spool, ledger = tmp_path / "spool", tmp_path / "ledger"
    chance, parent = random.Random(7), os.getpid()
    for run in range(KILLS):
        if run in AWAY.values():
            node.start()
        with ledger.open("ab") as promised:
            agent = subprocess.Popen(
                [sys.executable, "-c", AGENT, node.bootstrap, str(spool), str(run)],
                stdout=promised,
                stderr=subprocess.DEVNULL,
                preexec_fn=lambda: die_with_parent(parent),
            )
        before = ledger.stat().st_size
        until(lambda before=before: ledger.stat().st_size > before, "the agent publishes")  # type: ignore[misc]
        time.sleep(chance.uniform(0.0, 1.5))
        if run in AWAY:
            node.kill()
            time.sleep(chance.uniform(0.0, 1.5))
        agent.send_signal(signal.SIGKILL)
        agent.wait()
    with Producer(node.bootstrap, agent="a", principal="p", spool=spool) as last:
        until(lambda: spool.exists() and not last.stats().spooled_bytes, "the spool is sent")
    assert [path.name for path in spool.iterdir()] == ["lock"]

    events = read(node.bootstrap)
    promises = [line.split() for line in ledger.read_text().splitlines()]
    assert len(promises) > 20 * KILLS
    arrived = {event.event_id: (event.episode_id, event.step) for event in events}
    for event_id, episode, step in promises:
        assert arrived[event_id] == (episode, int(step))
    assert len(set(arrived.values())) == len(arrived)
    # What no promise was made for is the event at which an agent was killed.
    assert len(promises) <= len(arrived) <= len(promises) + KILLS
    first: dict[str, list[int]] = {}
    for event in events:
        if event.step not in (steps := first.setdefault(event.episode_id, [])):
            steps.append(event.step)
    assert all(steps == sorted(steps) for steps in first.values())
    print(f"{len(promises)} promised, {len(events) - len(arrived)} sent again")


@pytest.mark.parametrize(("limit", "too_large"), [(1_000_000, 1_500_000), (100_000, 150_000)])
def test_an_event_larger_than_the_cluster_takes_is_dropped_and_the_others_are_not(
    tmp_path: Path, node: KafkaNode, limit: int, too_large: int
) -> None:
    admin = KafkaAdminClient(bootstrap_servers=node.bootstrap)
    topic = NewTopic("ratchet.events", 4, 1, topic_configs={"max.message.bytes": str(limit)})
    admin.create_topics([topic], wait_for_metadata=True)
    admin.close()
    with Producer(node.bootstrap, agent="a", principal="p", spool=tmp_path / "spool") as producer:
        episode = producer.episode(Task(environment="e", task_id="t"), Actor(kind="expert"))
        for number in range(10):
            size = too_large if number % 3 == 1 else 10
            assert episode.step([Message(role="user", content="?")], Message(role="assistant", content="!"), "x" * size)
    assert (producer.stats().sent, producer.stats().dropped) == (7, 3)
    assert [event.step for event in read(node.bootstrap)] == [0, 2, 3, 5, 6, 8, 9]
