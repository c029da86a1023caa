"""Real adapters of the tiny base, and the serve role in front of the inference server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE
from daemon.serving.role import AddPages, serve
from daemon.serving.settings import CaptureSettings, ServingSettings
from streams.access.access import Access
from streams.kafka.settings import KafkaSettings
from streams.policy.client import PolicyClient
from streams.runtime.processes import free_port
from streams.trust.groups import AdapterSettings
from tests.builders.adapters import add_random_adapter
from tests.waiting import eventually

NO_KAFKA = KafkaSettings(bootstrap="127.0.0.1:9")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "home")


@pytest.fixture
def make_adapter(tiny_base: Path, registry: Registry) -> Callable[..., str]:
    """`add_random_adapter` of the tiny base, within the test's registry where no other is named."""
    return partial(add_random_adapter, tiny_base, within=registry)


@pytest.fixture
async def emptied(policy: PolicyClient) -> None:
    """Nothing is loaded but the base model: what other tests left takes places, as that of other homes does."""
    for model in await policy.models():
        if model.name != BASE:
            await policy.unload_adapter(model.name)


@pytest.fixture
async def serving(inference_url: str, registry: Registry) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a running serve role that has no store."""
    async with serve_role(registry, inference_url) as client:
        yield client


@asynccontextmanager
async def serve_role(
    registry: Registry,
    inference_url: str,
    store_url: str = "http://127.0.0.1:9",
    kafka: KafkaSettings = NO_KAFKA,
    waits: bool = True,
    adapters: AdapterSettings = AdapterSettings(),  # noqa: B008 - frozen
    add_pages: AddPages | None = None,
    access: Access | None = None,
    **parts: Any,
) -> AsyncIterator[httpx.AsyncClient]:
    """Runs a serve role, by default without a store; yields a client of it once it serves, or answers.

    `add_pages` and `access` are as `serve` takes them, `parts` more of its settings.
    """
    port, stop = free_port(), asyncio.Event()
    settings = ServingSettings(
        port=port,
        home=registry.home,
        inference_url=inference_url,
        reconcile_s=0.2,
        capture=CaptureSettings(flush_s=0),
        **parts,
    )
    role = asyncio.create_task(
        serve(settings, store_url, kafka, stop, access=access, adapters=adapters, add_pages=add_pages)
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

        async def serves() -> bool:
            status = (await client.get("/status")).json()
            return role.done() or not waits or status["served"] is not None or status["is_cold"]

        await eventually(serves, "the serve role serves", errors=(httpx.TransportError,))
        yield client
    stop.set()
    await role
