"""Running roles of each kind, and what they answer to a scrape."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from daemon.registry.registry import Registry
from ops import examples
from ratchet_client.events import OutcomeEvent, StepEvent
from streams.kafka.settings import KafkaSettings
from streams.runtime.health import health_app, health_listener
from streams.runtime.processes import free_port
from streams.store.api import build_api
from streams.store.settings import StoreSettings
from streams.store.writer import Store
from streams.trust.holdout import HoldoutSettings
from tests.builders.episodes import episode
from tests.builders.stored import records
from tests.daemon.conftest import serve_role
from tests.integration.otlp_role import otlp_role_of
from tests.served import served
from tests.waiting import eventually


@dataclass(frozen=True)
class Roles:
    """The addresses of running roles by the names of their jobs in Prometheus, and what each answered."""

    addresses: dict[str, str]
    scraped: dict[str, str]


@pytest.fixture
async def roles(inference_url: str, tmp_path: Path, kafka: KafkaSettings) -> AsyncIterator[Roles]:
    """Serve, record, assemble, otlp and the listener of the learn role, after a call, a cycle and some episodes."""
    registry = Registry(tmp_path / "home")
    registry.record_cycle(examples.CYCLE, actor="learner")
    path, learn_port = tmp_path / "store.duckdb", free_port()
    store = Store.open(StoreSettings(path=path), HoldoutSettings(), kafka)
    store.append(records([*answered_by_base("a", success=True), *answered_by_base("b", success=False)]))
    with served(build_api(store, path=path), lifespan="off") as store_url, otlp_role_of(kafka, tmp_path) as telemetry:
        telemetry.start()
        async with (
            health_listener("learn", health_app("learn", {}), "127.0.0.1", learn_port),
            serve_role(registry, inference_url, store_url, kafka, refresh_s=0.2) as serving,
        ):
            said = {"model": "assistant", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 2}
            for streamed in (False, True):
                asked = said | {"stream": streamed, "stream_options": {"include_usage": True} if streamed else None}
                assert (await serving.post("/v1/chat/completions", json=asked)).is_success

            async def store_is_seen() -> bool:
                return "ratchet_store_up 1.0" in (await serving.get("/metrics")).text

            await eventually(store_is_seen, "the serve role sees the store")
            addresses = {
                "ratchet-serve": str(serving.base_url),
                "ratchet-record": store_url,
                "ratchet-assemble": telemetry.assembler_url,
                "ratchet-otlp": telemetry.url,
                "ratchet-learn": f"http://127.0.0.1:{learn_port}",
            }
            async with httpx.AsyncClient() as http:
                scraped = {job: (await http.get(f"{url}/metrics")).text for job, url in addresses.items()}
            yield Roles(addresses, scraped)
    store.close()


def answered_by_base(episode_id: str, *, success: bool) -> list[StepEvent | OutcomeEvent]:
    """An episode of a policy, whose calls the base model answered."""
    *steps, outcome = episode(episode_id, actor="policy", success=success)
    named = [
        step.model_copy(update={"actor": step.actor.model_copy(update={"adapter": "base"})})
        for step in steps
        if isinstance(step, StepEvent)
    ]
    assert isinstance(outcome, OutcomeEvent)
    return [*named, outcome]
