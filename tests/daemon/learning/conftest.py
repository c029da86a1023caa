"""A learner's loop over a served store and a real inference server."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon.config import Settings
from daemon.learning.loop import Loop
from daemon.registry.registry import Registry
from daemon.serving.control_client import ControlClient
from learners.adapters import AdapterStore
from learners.settings import LearnerSettings
from streams.policy.client import PolicyClient
from streams.sandboxes.pool import SandboxPool
from streams.store.client import StoreClient
from tests.builders.episodes import HOLDOUT
from tests.builders.stored import ServedStore

NEEDED = 2


@pytest.fixture
async def loop(
    served_store: ServedStore, policy: PolicyClient, registry: Registry, tiny_base: Path
) -> AsyncIterator[Loop]:
    """What the learner works with; nothing that plays or serves is running, and no test here gets that far."""
    learner = LearnerSettings(min_new_episodes=NEEDED)
    async with StoreClient(served_store.url) as store, ControlClient("http://127.0.0.1:9") as control:
        yield Loop(
            settings=Settings(home=registry.home, learner=learner, holdout=HOLDOUT).settled(),
            base=tiny_base,
            registry=registry,
            adapters=AdapterStore(registry.home / "adapters"),
            store=store,
            policy=policy,
            control=control,
            pool=SandboxPool("textworld_express"),
            tasks=(),
            held_out=(),
            out_of_domain=(),
        )
