"""A retraction is published like every event, and the store asks for no work on revoked episodes."""

from collections.abc import Callable

import pytest
from kafka import KafkaConsumer

from ratchet_client.events import EVENT, RetractionEvent
from ratchet_client.kafka.signatures import SIGNATURE_HEADER, verify
from streams.errors import RetractionError, StoreError
from streams.kafka.records import Received
from streams.kafka.refusals import RefusedEvent
from streams.kafka.settings import KafkaSettings
from streams.store.client import StoreClient
from streams.store.decoded import Decoded
from streams.store.retraction import retract
from streams.store.writer import Store
from streams.trust.holdout import Split
from tests.builders.episodes import TASKS, episode
from tests.builders.stored import Log, ServedStore

TASK = TASKS[Split.TRAIN][0]


def column(store: Store, sql: str) -> list[object]:
    found: list[object] = store.query(sql).column(0).to_pylist()
    return found


def test_episodes_of_revoked_principals_are_stored_but_neither_trusted_nor_branched(
    open_store: Callable[[], Store],
) -> None:
    store = open_store()
    log = Log(store)
    log.publish(*episode("before", TASK), RetractionEvent(principal="late", reason="asked"))
    log.publish(*episode("late", TASK, action="run"), *episode("other", TASK, action="walk"))
    assert column(store, "SELECT episode_id FROM trusted ORDER BY 1") == ["before", "other"]
    assert [pending.message.key for pending in store.pending(10)] == [b"before", b"other"]
    assert "late" in column(store, "SELECT episode_id FROM transitions")


def test_an_episode_that_ends_after_its_principal_revoked_consent_is_not_trusted(
    open_store: Callable[[], Store],
) -> None:
    store = open_store()
    log, (first, *rest) = Log(store), episode("leaves", TASK)
    log.publish(first)
    log.publish(RetractionEvent(principal="leaves", reason="asked"), *rest)
    assert column(store, "SELECT episode_id FROM trusted") == []


def test_branch_requests_lost_with_a_log_are_not_repeated_for_revoked_principals(
    open_store: Callable[[], Store],
) -> None:
    store = open_store()
    log = Log(store)
    store.adopt_log("one", {})
    log.publish(*episode("stays", TASK), *episode("leaves", TASK, action="run"))
    store.published(store.pending(10)[-1].sequence)
    log.publish(RetractionEvent(principal="leaves", reason="asked"))
    store.adopt_log("another", {})
    assert [pending.message.key for pending in store.pending(10)] == [b"stays"]


async def test_a_retraction_is_published_as_a_signed_event_and_waiting_for_it_is_limited(
    served_store: ServedStore, kafka: KafkaSettings
) -> None:
    event = RetractionEvent(principal="ann", reason="asked")
    async with StoreClient(served_store.url) as client:
        with pytest.raises(RetractionError, match="did not get to it within 1 s; it will be obeyed"):
            await retract(kafka, client, event, b"key of ann", patience_s=1)
    consumer = KafkaConsumer(
        kafka.events_topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=1500
    )
    (record,) = consumer
    consumer.close()
    assert EVENT.validate_json(record.value) == event
    assert verify(b"key of ann", record.value, dict(record.headers)[SIGNATURE_HEADER].decode())


async def test_a_retraction_that_is_refused_says_why(served_store: ServedStore, kafka: KafkaSettings) -> None:
    first = Received(kafka.events_topic, 0, 0, b"ann", b"{}")
    served_store.store.append([Decoded(first, RefusedEvent("the record has no signature", "ann"))])
    async with StoreClient(served_store.url) as client:
        with pytest.raises(RetractionError, match="refused the retraction: the record has no signature"):
            await retract(kafka, client, RetractionEvent(principal="ann", reason="asked"))


async def test_without_a_running_store_no_retraction_is_published(kafka: KafkaSettings) -> None:
    async with StoreClient("http://127.0.0.1:9") as client:
        with pytest.raises(StoreError, match="is the record role running"):
            await retract(kafka, client, RetractionEvent(principal="ann", reason="asked"))
    consumer = KafkaConsumer(
        kafka.events_topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=1000
    )
    assert list(consumer) == []
    consumer.close()
