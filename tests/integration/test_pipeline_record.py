"""From a producer through a real cluster and a real Faust worker into a real DuckDB file, and back out again."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import pytest
from kafka import KafkaConsumer, KafkaProducer

from streams.errors import StoreError
from streams.events import Actor, Alternative, BranchRequest, BranchResult, Message, OutcomeEvent, StepEvent, Task
from streams.intake.decoding import decode_event
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.records import Received
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics, end_offsets
from streams.runtime.processes import die_with_parent, free_port
from streams.store.client import StoreClient
from streams.store.settings import StoreSettings
from streams.store.writer import Store
from streams.trust.holdout import HoldoutSettings, Split

HOLDOUT = HoldoutSettings(selection=0.5, confirmation=0.0)
RECORDER = """
import asyncio, sys
from streams.intake.admission import AdmissionSettings
from streams.trust.holdout import HoldoutSettings
from streams.runtime.processes import stop_on_signals
from streams.trust.quota import QuotaSettings
from streams.intake.role import serve
from streams.settings import KafkaSettings, StoreSettings

async def main():
    kafka, store, holdout = sys.argv[1:]
    await serve(
        KafkaSettings.model_validate_json(kafka),
        StoreSettings.model_validate_json(store),
        HoldoutSettings.model_validate_json(holdout),
        stop_on_signals(),
        # The episodes of these tests are all alike.
        AdmissionSettings(quota=QuotaSettings(near_duplicates=10**6)),
    )

asyncio.run(main())
"""

Pairs = Sequence[tuple[str, bytes]]
Publish = Callable[[str, Pairs], None]


class Recorder:
    """The record role as a process that can be killed."""

    def __init__(self, kafka: KafkaSettings, path: Path) -> None:
        self.store = StoreSettings(path=path, port=free_port(), batch=200, batch_s=0.1)
        self.url = f"http://127.0.0.1:{self.store.port}"
        self._arguments = [kafka.model_dump_json(), self.store.model_dump_json(), HOLDOUT.model_dump_json()]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        parent = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-c", RECORDER, *self._arguments], preexec_fn=lambda: die_with_parent(parent)
        )

    def end(self, number: signal.Signals) -> int:
        """Send the signal; returns the exit status."""
        if self._process is None:
            return 0
        self._process.send_signal(number)
        return self._process.wait(60)


@contextmanager
def recorder_of(kafka: KafkaSettings, folder: Path) -> Iterator[Recorder]:
    """Not started yet; killed in the end."""
    role = Recorder(kafka, folder / "store.duckdb")
    try:
        yield role
    finally:
        role.end(signal.SIGKILL)


@pytest.fixture
def recorder(kafka: KafkaSettings, tmp_path: Path) -> Iterator[Recorder]:
    with recorder_of(kafka, tmp_path) as role:
        yield role


@pytest.fixture
async def client(recorder: Recorder) -> AsyncIterator[StoreClient]:
    async with StoreClient(recorder.url) as store:
        yield store


@contextmanager
def publisher(kafka: KafkaSettings) -> Iterator[Publish]:
    """Publishes pairs of key and value to a topic and returns when the cluster has them."""
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)

    def send(topic: str, pairs: Pairs) -> None:
        for future in [producer.send(topic, key=key.encode(), value=value) for key, value in pairs]:
            future.get(timeout=60)

    yield send
    producer.close()


@pytest.fixture
def publish(kafka: KafkaSettings) -> Iterator[Publish]:
    with publisher(kafka) as send:
        yield send


def episode(
    name: str,
    actor: Literal["policy", "expert"] = "expert",
    *,
    success: bool = True,
    split: Split = Split.TRAIN,
    steps: int = 4,
) -> list[tuple[str, bytes]]:
    """One growing chat and its verdict, ready to be published."""
    seed = next(seed for seed in range(100) if HOLDOUT.split(f"twc/train/{seed}") is split)
    messages: tuple[Message, ...] = (Message(role="user", content="You are in a kitchen."),)
    events: list[StepEvent | OutcomeEvent] = []
    for number in range(steps):
        step = StepEvent(
            episode_id=name,
            step=number,
            agent="assistant",
            principal="tenant/user",
            task=Task(environment="textworld_express", task_id=f"twc/train/{seed}", seed=seed),
            messages=messages,
            action=Message(role="assistant", content=f"go {number}"),
            observation=f"You went {number}.",
            done=number == steps - 1,
            actor=Actor(kind=actor),
        )
        events.append(step)
        messages += (step.action, Message(role="user", content=step.observation))
    events.append(OutcomeEvent(episode_id=name, verifier="game", success=success, score=float(success)))
    return [(name, event.to_json()) for event in events]


async def eventually(holds: Callable[[], Awaitable[bool]], within_s: float = 90.0) -> None:
    """Wait until it holds. A role that is starting does not answer yet."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        with suppress(StoreError):
            if await holds():
                return
        await asyncio.sleep(0.1)
    pytest.fail(f"not within {within_s:.0f} s")


async def caught_up(client: StoreClient, kafka: KafkaSettings, topic: str) -> bool:
    status = await client.status()
    positions = status.positions.get(topic, {})
    ends = end_offsets(kafka.bootstrap, topic)
    return all(positions.get(partition, 0) == end for partition, end in ends.items()) and status.outbox_pending == 0


def read_all(kafka: KafkaSettings, topic: str) -> list[tuple[bytes, dict[str, str]]]:
    """Value and headers of every record of the topic."""
    consumer = KafkaConsumer(
        topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=2000
    )
    found = [(record.value, {name: text.decode() for name, text in record.headers}) for record in consumer]
    consumer.close()
    return found


async def test_everything_published_is_stored_once_or_dead_lettered(
    kafka: KafkaSettings, recorder: Recorder, client: StoreClient, publish: Publish
) -> None:
    recorder.start()
    await eventually(lambda: answers(client))
    good = [pair for number in range(100) for pair in episode(f"episode-{number}")]
    key, step = good[0]
    bad = [
        (key, b"{not json"),
        (key, step.replace(b'"agent"', b'"agnet"')),
        (key, step.replace(b'"schema":1', b'"schema":2')),
        (key, b"\xff\xfe"),
    ]
    publish(kafka.events_topic, [*good[:250], *bad, *good[200:300], *good[250:]])
    await eventually(lambda: caught_up(client, kafka, kafka.events_topic))

    status = await client.status()
    assert status.events == {"outcome": 100, "step": 400}
    assert (status.duplicates, status.dead_letters, status.gaps) == (100, 4, 0)
    published = sum(end_offsets(kafka.bootstrap, kafka.events_topic).values())
    assert sum(status.events.values()) + status.duplicates + status.dead_letters == published
    letters = read_all(kafka, kafka.dead_letters_topic)
    assert sorted(value for value, _ in letters) == sorted(value for _, value in bad)
    assert {headers["ratchet-topic"] for _, headers in letters} == {kafka.events_topic}

    sequences = (await client.query("SELECT sequence FROM events")).column(0).to_pylist()
    assert len(set(sequences)) == 500
    with pytest.raises(StoreError, match="exactly one SELECT"):
        await client.query("DELETE FROM events")
    assert recorder.end(signal.SIGTERM) == 0
    with pytest.raises(StoreError, match="is the record role running"):
        await client.status()


async def test_a_recorder_that_is_killed_again_and_again_loses_and_doubles_nothing(
    kafka: KafkaSettings, recorder: Recorder, client: StoreClient, publish: Publish
) -> None:
    recorder.start()
    await eventually(lambda: answers(client))
    sent = 0
    for _ in range(2):
        for _ in range(20):
            pairs = [pair for number in range(10) for pair in episode(f"episode-{sent}-{number}")]
            publish(kafka.events_topic, pairs)
            sent += len(pairs)
        before = (await client.status()).sequence
        await eventually(lambda before=before: has_passed(client, before))  # type: ignore[misc]
        recorder.end(signal.SIGKILL)
        recorder.start()
        await eventually(lambda: answers(client))
    await eventually(lambda: caught_up(client, kafka, kafka.events_topic))

    status = await client.status()
    assert sum(status.events.values()) == sent
    assert (status.duplicates, status.dead_letters, status.gaps) == (0, 0, 0)
    requests = [BranchRequest.model_validate_json(value) for value, _ in read_all(kafka, kafka.branches_topic)]
    # A kill between publishing and moving the outbox's cursor repeats requests: their ids are what counts.
    assert len({request.event_id for request in requests}) == status.trusted["train"] == sent // 5


async def test_trusted_episodes_are_requested_and_their_branches_stored(
    kafka: KafkaSettings, recorder: Recorder, client: StoreClient, publish: Publish
) -> None:
    recorder.start()
    await eventually(lambda: answers(client))
    publish(
        kafka.events_topic,
        [
            *episode("expert"),
            *episode("verified", "policy"),
            *episode("failed", "policy", success=False),
            *episode("held-out", split=Split.SELECTION),
        ],
    )
    await eventually(lambda: caught_up(client, kafka, kafka.events_topic))
    requests = [BranchRequest.model_validate_json(value) for value, _ in read_all(kafka, kafka.branches_topic)]
    assert sorted((request.episode_id, request.verdict) for request in requests) == [
        ("expert", "trusted"),
        ("failed", "failed"),
        ("verified", "trusted"),
    ]
    assert (await client.status()).trusted == {"selection": 1, "train": 2}

    (request,) = (request for request in requests if request.episode_id == "verified")
    result = BranchResult(
        event_id=BranchResult.id_for(request.event_id, 0),
        request_id=request.event_id,
        episode_id=request.episode_id,
        task=request.task,
        step=0,
        requested=2,
        fidelity="sandbox_replayed",
        alternatives=(Alternative(action="jump", observation="No.", done=False, score=0.0, source="valid_actions"),),
    )
    publish(kafka.transitions_topic, [("verified", result.to_json()), ("verified", result.to_json())])
    await eventually(lambda: caught_up(client, kafka, kafka.transitions_topic))
    status = await client.status()
    assert status.transitions == {"branch": 1, "production": 16}
    assert (status.branches.requested, status.branches.executed, status.duplicates) == (2, 1, 1)


async def test_what_was_committed_and_not_published_goes_out_at_the_next_start(
    kafka: KafkaSettings, recorder: Recorder, client: StoreClient
) -> None:
    store = Store.open(recorder.store, HOLDOUT, kafka)
    store.append(
        [
            decode_event(Received(kafka.events_topic, 0, offset, key.encode(), value))
            for offset, (key, value) in enumerate(episode("expert"))
        ]
    )
    store.close()
    recorder.start()

    async def published() -> bool:
        return (await client.status()).outbox_pending == 0

    await eventually(published)
    ((value, _),) = read_all(kafka, kafka.branches_topic)
    assert BranchRequest.model_validate_json(value).episode_id == "expert"


async def test_a_log_that_is_replaced_under_its_address_is_read_from_its_beginning(tmp_path: Path) -> None:
    with EmbeddedBroker() as broker:
        kafka = KafkaSettings(bootstrap=broker.bootstrap, session_timeout_s=2)
        with recorder_of(kafka, tmp_path) as recorder:
            recorder.start()
            async with StoreClient(recorder.url) as client:
                await eventually(lambda: answers(client))
                with publisher(kafka) as publish:
                    publish(kafka.events_topic, [pair for number in range(5) for pair in episode(f"before-{number}")])
                await eventually(lambda: caught_up(client, kafka, kafka.events_topic))
                broker.stop()
                with EmbeddedBroker(broker.port):
                    create_topics(kafka)
                    with publisher(kafka) as publish:
                        publish(kafka.events_topic, episode("after"))
                    await eventually(lambda: caught_up(client, kafka, kafka.events_topic))
                    assert (await client.status()).events == {"outcome": 6, "step": 24}


async def answers(client: StoreClient) -> bool:
    await client.status()
    return True


async def has_passed(client: StoreClient, sequence: int) -> bool:
    return (await client.status()).sequence > sequence
