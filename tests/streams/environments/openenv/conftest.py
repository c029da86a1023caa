"""A server that serves TextWorldExpress, and a session of it."""

from collections.abc import Iterator

import pytest

from streams.environments.openenv.environment import OpenEnv
from streams.runtime.processes import free_port
from tests.streams.environments.openenv.openenv_servers import reference, settings, stopped


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
