"""From a producer through a real cluster and a real Faust worker into a real DuckDB file, and back out again."""

import signal
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from streams.branch_events import Alternative, BranchRequest, BranchResult
from streams.errors import StoreError
from streams.intake.decoding import decode_event
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.records import Received
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics, end_offsets
from streams.store.client import StoreClient
from streams.store.writer import Store
from streams.trust.holdout import Split
from tests.builders.episodes import HOLDOUT, TASKS, episode
from tests.integration.recording import Publish, Recorder, answers, caught_up, pairs, publisher, read_all, recorder_of
from tests.waiting import eventually


@pytest.fixture
def recorder(kafka: KafkaSettings, tmp_path: Path) -> Iterator[Recorder]:
    with recorder_of(kafka, tmp_path) as role:
        yield role


@pytest.fixture
async def client(recorder: Recorder) -> AsyncIterator[StoreClient]:
    async with StoreClient(recorder.url) as store:
        yield store


@pytest.fixture
def publish(kafka: KafkaSettings) -> Iterator[Publish]:
    with publisher(kafka) as send:
        yield send


async def test_everything_published_is_stored_once_or_dead_lettered(
    kafka: KafkaSettings, recorder: Recorder, client: StoreClient, publish: Publish
) -> None:
    recorder.start()
    await eventually(lambda: answers(client))
    good = [pair for number in range(100) for pair in pairs(episode(f"episode-{number}", steps=4))]
    key, step = good[0]
    bad = [
        (key, b"{not json"),
        (key, step.replace(b'"agent"', b'"agnet"')),
        (key, step.replace(b'"schema":2', b'"schema":3')),
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


@pytest.mark.slow
async def test_a_recorder_that_is_killed_repeatedly_loses_and_duplicates_nothing(
    kafka: KafkaSettings, recorder: Recorder, client: StoreClient, publish: Publish
) -> None:
    recorder.start()
    await eventually(lambda: answers(client))
    sent = 0
    for _ in range(2):
        for _ in range(20):
            played = [pair for number in range(10) for pair in pairs(episode(f"episode-{sent}-{number}"))]
            publish(kafka.events_topic, played)
            sent += len(played)
        before = (await client.status()).sequence
        await eventually(partial(has_passed, client, before))
        recorder.end(signal.SIGKILL)
        recorder.start()
        await eventually(lambda: answers(client))
    await eventually(lambda: caught_up(client, kafka, kafka.events_topic))

    status = await client.status()
    assert sum(status.events.values()) == sent
    assert (status.duplicates, status.dead_letters, status.gaps) == (0, 0, 0)
    requests = [BranchRequest.model_validate_json(value) for value, _ in read_all(kafka, kafka.branches_topic)]
    # A kill between publishing and moving the outbox's cursor repeats requests: their ids are what counts.
    assert len({request.event_id for request in requests}) == status.trusted["train"] == sent // 3


async def test_trusted_episodes_are_requested_and_their_branches_stored(
    kafka: KafkaSettings, recorder: Recorder, client: StoreClient, publish: Publish
) -> None:
    recorder.start()
    await eventually(lambda: answers(client))
    publish(
        kafka.events_topic,
        [
            *pairs(episode("expert")),
            *pairs(episode("verified", actor="policy")),
            *pairs(episode("failed", actor="policy", success=False)),
            *pairs(episode("held-out", TASKS[Split.SELECTION][0])),
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
    assert status.transitions == {"branch": 1, "production": 8}
    assert (status.branches.requested, status.branches.executed, status.duplicates) == (2, 1, 1)


@pytest.mark.nightly
async def test_committed_but_unpublished_messages_are_published_at_the_next_start(
    kafka: KafkaSettings, recorder: Recorder, client: StoreClient
) -> None:
    store = Store.open(recorder.store, HOLDOUT, kafka)
    store.append(
        [
            decode_event(Received(kafka.events_topic, 0, offset, key.encode(), value))
            for offset, (key, value) in enumerate(pairs(episode("expert")))
        ]
    )
    store.close()
    recorder.start()

    async def published() -> bool:
        return (await client.status()).outbox_pending == 0

    await eventually(published, errors=(StoreError,))
    ((value, _),) = read_all(kafka, kafka.branches_topic)
    assert BranchRequest.model_validate_json(value).episode_id == "expert"


@pytest.mark.nightly
async def test_a_log_that_is_replaced_under_its_address_is_read_from_its_beginning(tmp_path: Path) -> None:
    with EmbeddedBroker() as broker:
        kafka = KafkaSettings(bootstrap=broker.bootstrap, session_timeout_s=2)
        with recorder_of(kafka, tmp_path) as recorder:
            recorder.start()
            async with StoreClient(recorder.url) as client:
                await eventually(lambda: answers(client))
                with publisher(kafka) as publish:
                    publish(
                        kafka.events_topic, [pair for number in range(5) for pair in pairs(episode(f"before-{number}"))]
                    )
                await eventually(lambda: caught_up(client, kafka, kafka.events_topic))
                broker.stop()
                with EmbeddedBroker(broker.port):
                    create_topics(kafka)
                    with publisher(kafka) as publish:
                        publish(kafka.events_topic, pairs(episode("after")))
                    await eventually(lambda: caught_up(client, kafka, kafka.events_topic))
                    assert (await client.status()).events == {"outcome": 6, "step": 12}


async def has_passed(client: StoreClient, sequence: int) -> bool:
    return (await client.status()).sequence > sequence
