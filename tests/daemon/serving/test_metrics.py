import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from kafka import KafkaProducer

from daemon.registry import holds
from daemon.registry.registry import Registry
from daemon.serving.alias import Alias
from daemon.serving.metrics import Metrics
from daemon.serving.store_watch import StoreWatch
from ratchet_client.events import OutcomeEvent
from streams.intake.decoding import decode_event
from streams.kafka.records import Received
from streams.kafka.settings import KafkaSettings
from streams.runtime.processes import free_port
from streams.store.api import build_api
from streams.store.client import StoreClient
from streams.store.settings import StoreSettings
from streams.store.status import ProductionCounts
from streams.store.writer import Store
from streams.trust.holdout import HoldoutSettings, Split
from tests.builders.episodes import TASKS
from tests.builders.practised import practised
from tests.builders.stored import Log
from tests.served import served


@pytest.fixture
def store(tmp_path: Path, kafka: KafkaSettings) -> Iterator[Store]:
    store = Store.open(StoreSettings(path=tmp_path / "store.duckdb"), HoldoutSettings(), kafka)
    yield store
    store.close()


@pytest.fixture
async def watch(store: Store, kafka: KafkaSettings) -> AsyncIterator[StoreWatch]:
    with served(build_api(store), lifespan="off") as address:
        async with StoreClient(address) as client:
            yield StoreWatch(client, kafka)


def publish(kafka: KafkaSettings, count: int) -> list[Received]:
    """Publish `count` outcomes; they come back as the log holds them."""
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    received = []
    for number in range(count):
        event = OutcomeEvent(episode_id=f"episode-{number}", verifier="test", success=True, score=1.0).to_json()
        offset = producer.send(kafka.events_topic, event).get(timeout=20).offset
        received.append(Received(kafka.events_topic, 0, offset, None, event))
    producer.close()
    return received


async def test_counts_come_from_the_store_and_the_lag_from_the_log(
    watch: StoreWatch, store: Store, kafka: KafkaSettings, tmp_path: Path
) -> None:
    metrics = Metrics(Registry(tmp_path / "home"), Alias("assistant"), watch)
    assert b"ratchet_store_up 0.0" in metrics.expose()
    assert b"ratchet_events_total" not in metrics.expose()
    received = await asyncio.to_thread(publish, kafka, 5)
    store.append([decode_event(record) for record in received[:3]])
    await watch.refresh()
    exposed = metrics.expose().decode()
    assert "ratchet_store_up 1.0" in exposed
    assert 'ratchet_events_total{kind="outcome"} 3.0' in exposed
    assert f'ratchet_consumer_lag{{partition="0",topic="{kafka.events_topic}"}} 2.0' in exposed
    assert f'ratchet_consumer_lag{{partition="0",topic="{kafka.transitions_topic}"}} 0.0' in exposed
    assert 'ratchet_branches_total{result="executed"} 0.0' in exposed


async def test_practice_is_counted_apart(watch: StoreWatch, store: Store, kafka: KafkaSettings, tmp_path: Path) -> None:
    metrics = Metrics(Registry(tmp_path / "home"), Alias("assistant"), watch)
    task = next(name for name in TASKS[Split.TRAIN] if HoldoutSettings().split(name) is Split.TRAIN)
    Log(store).publish(*practised("won", task), *practised("lost", task, success=False))
    await watch.refresh()
    exposed = metrics.expose().decode()
    for line in (
        "ratchet_practice_episodes_total 2.0",
        "ratchet_practice_successes_total 1.0",
        "ratchet_practice_steps_total 4.0",
        "ratchet_practice_unusable_total 0.0",
        'ratchet_practice_tasks{bucket="frontier"} 1.0',
        'ratchet_events_total{kind="practice_step"} 4.0',
        'ratchet_transitions_total{origin="practice"} 4.0',
    ):
        assert line in exposed
    assert "ratchet_episodes{" not in exposed
    assert 'kind="step"' not in exposed


async def test_an_unavailable_store_is_reported_and_its_last_counts_stay(
    watch: StoreWatch, kafka: KafkaSettings, tmp_path: Path
) -> None:
    metrics = Metrics(Registry(tmp_path / "home"), Alias("assistant"), watch)
    await watch.refresh()
    watch.client = StoreClient(f"http://127.0.0.1:{free_port()}")
    await watch.refresh()
    exposed = metrics.expose().decode()
    assert "ratchet_store_up 0.0" in exposed
    assert "ratchet_duplicates_total 0.0" in exposed


async def test_a_broken_audit_log_is_told_and_all_else_is_shown_on(
    watch: StoreWatch, kafka: KafkaSettings, tmp_path: Path
) -> None:
    registry = Registry(tmp_path / "home")
    metrics = Metrics(registry, Alias("assistant"), watch)
    for reason in ("first", "second"):
        holds.begin(registry.audit, "base", "anna", reason)
        holds.end(registry.audit, "base", "anna", reason)
    holds.begin(registry.audit, "base", "anna", "third")
    sound = metrics.expose().decode()
    assert "ratchet_audit_chain_broken 0.0" in sound
    assert "ratchet_promotion_hold 1.0" in sound
    whole = registry.audit.path.read_bytes()
    for broken in (whole.replace(b"anna", b"dora", 1), b"{}" + whole):
        registry.audit.path.write_bytes(broken)
        shown = metrics.expose().decode()
        assert "ratchet_audit_chain_broken 1.0" in shown
        assert "ratchet_promotion_hold 1.0" in shown
    registry.audit.path.write_bytes(whole)
    assert "ratchet_audit_chain_broken 0.0" in metrics.expose().decode()


async def test_production_is_told_by_the_adapter_and_its_position(
    watch: StoreWatch, store: Store, tmp_path: Path
) -> None:
    registry = Registry(tmp_path / "home")
    metrics = Metrics(registry, Alias("assistant"), watch)
    served = registry.name("a" * 64, "serve", "to serve")
    await watch.refresh()
    assert watch.status is not None
    counted = {served: ProductionCounts(episodes=5, successes=3), "base": ProductionCounts(episodes=2, successes=0)}
    watch.status = watch.status.model_copy(update={"production": counted})
    exposed = metrics.expose().decode()
    adapter = "a" * 64
    assert f'ratchet_production_episodes{{adapter="{adapter}",position="earlier",success="true"}} 3.0' in exposed
    assert 'ratchet_production_episodes{adapter="base",position="champion",success="false"} 2.0' in exposed
