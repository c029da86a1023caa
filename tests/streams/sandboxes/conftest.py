"""Real sandboxes: a Java virtual machine in the test's own process, worker processes, walls, and a server."""

from collections.abc import Iterator

import pytest

from streams.environments.openenv.environment import OpenEnv
from streams.events import Task
from streams.runtime.processes import free_port
from streams.sandboxes.isolation.launching import Tier
from streams.sandboxes.isolation.resource_monitor import Warden
from tests.streams.environments.openenv.openenv_servers import reference, settings, stopped
from tests.streams.sandboxes.isolated import TIERS, tier_called


@pytest.fixture
def task() -> Task:
    return Task(environment="textworld_express", task_id="twc/train/17", seed=17)


@pytest.fixture(scope="module")
def warden() -> Iterator[Warden]:
    with Warden() as warden:
        yield warden


@pytest.fixture(scope="module", params=TIERS)
def tier(request: pytest.FixtureRequest) -> Tier:
    return tier_called(request.param)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where the reference server serves TextWorldExpress."""
    chosen = free_port()
    process = reference(chosen)
    yield chosen
    assert stopped(process) == 0


@pytest.fixture
def session(port: int) -> Iterator[OpenEnv]:
    opened = OpenEnv(settings(port))
    yield opened
    opened.close()
