"""The library for agents over a real broker: in order, nothing lost that was promised, and never in the agent's way."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from ratchet_client.errors import ConfigurationError
from ratchet_client.events import EVENT, Actor, Message, OutcomeEvent, RetractionEvent, StepEvent, Task
from ratchet_client.ids import uuid7
from ratchet_client.kafka.signatures import verify
from ratchet_client.producer import Episode, Producer
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics
from streams.runtime.processes import free_port
from tests.builders.published import read, steps_read
from tests.waiting import until

TASK = Task(environment="textworld_express", task_id="twc/train/17", seed=17)
EXPERT = Actor(kind="expert")
STATE = (Message(role="user", content="You are in a kitchen."),)
HEAVY = {"torch", "faust", "aiokafka", "duckdb", "pyarrow", "structlog", "httpx", "fastapi", "transformers"}


@pytest.fixture(scope="module")
def bootstrap() -> Iterator[str]:
    with EmbeddedBroker() as broker:
        yield broker.bootstrap


@pytest.fixture
def topic(bootstrap: str) -> str:
    return made(bootstrap, uuid7())


def made(bootstrap: str, topic: str) -> str:
    create_topics(KafkaSettings(bootstrap=bootstrap, partitions=2, events_topic=topic))
    return topic


def producer_of(bootstrap: str, topic: str, **options: object) -> Producer:
    return Producer(bootstrap, agent="assistant", principal="tenant/user", topic=topic, **options)  # type: ignore[arg-type]  # each test's own


def play(episode: Episode, steps: int) -> list[bool]:
    return [
        episode.step(STATE, Message(role="assistant", content=f"go {step}"), f"You went {step}.")
        for step in range(steps)
    ]


def step_of(episode_id: str, step: int, observation: str = "") -> StepEvent:
    return StepEvent(
        episode_id=episode_id,
        step=step,
        agent="assistant",
        principal="tenant/user",
        task=TASK,
        messages=STATE,
        action=Message(role="assistant", content="wait"),
        observation=observation,
        actor=EXPERT,
    )


def test_an_agent_that_imports_it_imports_nothing_heavy() -> None:
    script = "import ratchet_client.producer, sys; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    modules = {module.partition(".")[0] for module in imported.stdout.split()}
    assert {"kafka", "pydantic"} <= modules
    assert not HEAVY & modules


def test_an_episode_arrives_whole_in_order_and_under_its_key(bootstrap: str, topic: str) -> None:
    with producer_of(bootstrap, topic) as producer:
        episodes = [producer.episode(TASK, EXPERT) for _ in range(5)]
        for number in range(20):
            for episode in episodes:
                assert episode.step(STATE, Message(role="assistant", content="wait"), "", done=number == 19)
        for episode in episodes:
            assert episode.outcome(verifier="game", success=True, score=1.0, evidence={"moves": 20})
    assert producer.stats().sent == 105
    events = [(key, EVENT.validate_json(value)) for key, value, _ in read(bootstrap, topic)]
    assert len({event.event_id for _, event in events}) == 105
    assert {UUID(event.event_id).version for _, event in events} == {7}
    for episode in episodes:
        own = [event for key, event in events if key == episode.episode_id.encode()]
        assert [event.step for event in own if isinstance(event, StepEvent)] == list(range(20))
        assert isinstance(own[-1], OutcomeEvent)
        assert own[-1].evidence == {"moves": 20}


def test_a_retraction_is_published_under_its_principal(bootstrap: str, topic: str) -> None:
    with producer_of(bootstrap, topic) as producer:
        producer.publish(RetractionEvent(principal="tenant/user", reason="asked for"))
    ((key, _, headers),) = read(bootstrap, topic)
    assert (key, headers) == (b"tenant/user", {})


def test_a_key_signs_every_event(bootstrap: str, topic: str) -> None:
    with producer_of(bootstrap, topic, key=b"secret") as producer:
        play(producer.episode(TASK, EXPERT), 3)
    for _, value, headers in read(bootstrap, topic):
        signature = headers["ratchet-signature"].decode()
        assert verify(b"secret", value, signature)
        assert not verify(b"other", value, signature)
        assert not verify(b"secret", value + b" ", signature)


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
def test_a_producer_compresses_when_it_is_told_to(bootstrap: str, topic: str, codec: str) -> None:
    with producer_of(bootstrap, topic, compression=codec) as producer:
        play(producer.episode(TASK, EXPERT), 3)
    assert producer.stats().dropped == 0
    assert len(read(bootstrap, topic)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("durable", [False, True])
def test_events_published_before_the_cluster_exists_arrive_when_it_does(tmp_path: Path, durable: bool) -> None:
    port = free_port()
    bootstrap = f"127.0.0.1:{port}"
    with producer_of(bootstrap, "ratchet.events", spool=tmp_path, durable=durable) as producer:
        episode = producer.episode(TASK, EXPERT)
        assert all(play(episode, 50))
        until(lambda: producer.stats().spooled_bytes > 0)
        with EmbeddedBroker(port):
            made(bootstrap, "ratchet.events")
            until(lambda: producer.stats().sent == 50)
            assert all(play(episode, 1))
            until(lambda: producer.stats().sent == 51)
            assert steps_read(bootstrap, "ratchet.events") == {episode.episode_id: list(range(51))}
            assert (producer.stats().queued, producer.stats().spooled_bytes) == (0, 0)


@pytest.mark.slow
def test_while_the_cluster_is_unavailable_events_wait_in_their_order(tmp_path: Path) -> None:
    with EmbeddedBroker() as broker:
        made(broker.bootstrap, "ratchet.events")
        with producer_of(broker.bootstrap, "ratchet.events", spool=tmp_path) as producer:
            play(producer.episode(TASK, EXPERT), 10)
            until(lambda: producer.stats().sent == 10)
            broker.stop()
            episodes = [producer.episode(TASK, EXPERT) for _ in range(10)]
            for _ in range(30):
                for episode in episodes:
                    play(episode, 1)
                time.sleep(0.05)
            # The embedded broker forgets: what the second one has was sent after the first had gone.
            with EmbeddedBroker(broker.port):
                made(broker.bootstrap, "ratchet.events")
                for episode in episodes:
                    play(episode, 10)
                until(lambda: producer.stats().sent == 410)
                found = steps_read(broker.bootstrap, "ratchet.events")
    assert found == {episode.episode_id: list(range(40)) for episode in episodes}


def test_unsent_events_are_sent_first_by_the_next_producer(bootstrap: str, topic: str, tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    with producer_of(nowhere, topic, spool=tmp_path, key=b"first", flush_timeout_s=0.2) as before:
        episode = before.episode(TASK, EXPERT)
        play(episode, 30)
    assert before.stats().dropped == 0
    with producer_of(bootstrap, topic, spool=tmp_path, key=b"second") as after:
        after.publish(step_of(episode.episode_id, 30))
    assert after.stats().sent == 31
    records = read(bootstrap, topic)
    assert [EVENT.validate_json(value).step for _, value, _ in records] == list(range(31))  # type: ignore[union-attr]  # all are steps
    keys = [b"first"] * 30 + [b"second"]
    assert all(
        verify(key, value, headers["ratchet-signature"].decode())
        for key, (_, value, headers) in zip(keys, records, strict=True)
    )
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


@pytest.mark.parametrize("spooled", [False, True])
def test_when_the_buffer_is_full_the_oldest_events_are_kept_and_the_others_counted(
    bootstrap: str, topic: str, tmp_path: Path, spooled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    options = {"spool": tmp_path, "spool_bytes": 10_000} if spooled else {}
    with producer_of(f"127.0.0.1:{port}", topic, memory_bytes=10_000, **options) as producer:
        episode = producer.episode(TASK, EXPERT)
        taken: list[bool] = []
        while producer.stats().dropped < 5:
            taken += play(episode, 1)
        assert taken.count(False) == 5
        with EmbeddedBroker(port) as broker:
            made(broker.bootstrap, topic)
            until(lambda: producer.stats().sent == taken.count(True))
            (steps,) = steps_read(broker.bootstrap, topic).values()
    assert steps == [step for step, kept in enumerate(taken) if kept]
    assert len([record for record in caplog.records if "dropped" in record.getMessage()]) == 1


def test_an_invalid_event_is_dropped_and_counted_without_an_exception(
    bootstrap: str, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    with producer_of(bootstrap, topic) as producer:
        episode = producer.episode(TASK, EXPERT)
        assert not episode.step([], Message(role="assistant", content="go"), "")
        assert not episode.step("private", "no message", 7)  # type: ignore[arg-type]  # what an agent may get wrong
        assert not episode.outcome(verifier="game", success=True, score=1.0, evidence={"what": object()})  # type: ignore[dict-item]  # as above
        assert not producer.publish(step_of("episode", 0, "\ud800"))
        assert not producer.publish(step_of("episode", 0, "x" * 17 * 2**20))
        assert play(episode, 1) == [True]
    assert (producer.stats().dropped, producer.stats().sent) == (5, 1)
    assert steps_read(bootstrap, topic) == {episode.episode_id: [2]}
    assert "private" not in caplog.text


def test_nothing_is_connected_or_written_before_it_is_needed(tmp_path: Path) -> None:
    producer = producer_of("nowhere.invalid:9092", "ratchet.events", spool=tmp_path / "spool", durable=True)
    assert os.listdir(tmp_path) == []
    producer.close()
    assert os.listdir(tmp_path) == []
    assert not producer.publish(step_of("late", 0))
    assert producer.stats().dropped == 1


def test_a_durable_producer_needs_a_folder() -> None:
    with pytest.raises(ConfigurationError, match="spool="):
        producer_of("127.0.0.1:1", "ratchet.events", durable=True)


def test_a_spool_that_cannot_be_written_does_not_stop_the_producer(bootstrap: str, topic: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with producer_of(bootstrap, topic, spool=tmp_path / "file" / "spool") as producer:
        assert all(play(producer.episode(TASK, EXPERT), 5))
    assert producer.stats().sent == 5
    with producer_of(bootstrap, topic, spool=tmp_path / "file" / "spool", durable=True) as durable:
        assert not any(play(durable.episode(TASK, EXPERT), 5))
    assert durable.stats().dropped == 5


AGENT = """
import os, sys
from pathlib import Path
from ratchet_client.events import Actor, Message, Task
from ratchet_client.producer import Producer

bootstrap, topic, spool, durable, steps = sys.argv[1:]
producer = Producer(bootstrap, agent="a", principal="p", topic=topic, spool=Path(spool), durable=durable == "durable")
episode = producer.episode(Task(environment="e", task_id="t"), Actor(kind="expert"))
for step in range(int(steps)):
    assert episode.step([Message(role="user", content="?")], Message(role="assistant", content="!"), "")
    os.write(1, f"{episode.episode_id} {step}\\n".encode())
"""


def test_an_agent_that_exits_without_closing_has_sent_everything(bootstrap: str, topic: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", AGENT, bootstrap, topic, str(tmp_path), "", "100"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert steps_read(bootstrap, topic) == {ran.stdout.split()[0]: list(range(100))}
    assert ran.stderr == ""


def test_a_durable_agent_that_is_killed_has_lost_nothing(bootstrap: str, topic: str, tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, nowhere, topic, str(tmp_path), "durable", "1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert agent.stdout is not None
    lines = [agent.stdout.readline() for _ in range(100)]
    agent.send_signal(signal.SIGKILL)
    lines += agent.communicate()[0].splitlines()
    with producer_of(bootstrap, topic, spool=tmp_path) as producer:
        until(lambda: producer.stats().sent >= len(lines))
    (steps,) = steps_read(bootstrap, topic).values()
    assert steps == list(range(len(steps)))
    assert len(steps) in (len(lines), len(lines) + 1)


FORKING_AGENT = """
import os, signal, sys, threading

def publish():
    for step in range(200):
        assert episode.step([Message(role="user", content="?")], Message(role="assistant", content="!"), "")

publishing = threading.Thread(target=publish)
publishing.start()
while publishing.is_alive():
    if os.fork() == 0:
        producer.publish(RetractionEvent(principal="p", reason="a child's"))
        sys.exit()
    os.wait()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_children_that_are_forked_while_it_writes_cost_a_killed_agent_nothing(
    bootstrap: str, topic: str, tmp_path: Path
) -> None:
    setup = AGENT[: AGENT.index("for step")].replace("import Actor", "import RetractionEvent, Actor")
    setup = setup.replace("spool=", "flush_timeout_s=0, spool=")
    killed = subprocess.run(
        [sys.executable, "-c", setup + FORKING_AGENT, f"127.0.0.1:{free_port()}", topic, str(tmp_path), "durable", ""],
        timeout=60,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    with producer_of(bootstrap, topic, spool=tmp_path) as producer:
        until(lambda: producer.stats().sent > 200 and producer.stats().spooled_bytes == 0)
    (steps,) = steps_read(bootstrap, topic).values()
    assert steps == list(range(200))


@pytest.mark.parametrize("durable", [False, True])
def test_a_forked_child_publishes_for_itself(bootstrap: str, topic: str, tmp_path: Path, durable: bool) -> None:
    with producer_of(bootstrap, topic, spool=tmp_path, durable=durable) as producer:
        parents = producer.episode(TASK, EXPERT)
        play(parents, 20)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                childs = producer.episode(TASK, EXPERT, "the child's")
                play(childs, 20)
                producer.close()
                status = 0 if producer.stats().sent == 20 else 2
            finally:
                os._exit(status)
        play(parents, 20)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert producer.stats().sent == 40
    assert len(read(bootstrap, topic)) == 60
    assert steps_read(bootstrap, topic) == {parents.episode_id: list(range(40)), "the child's": list(range(20))}
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
