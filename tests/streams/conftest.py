"""A store on a real file, or in a real lake, and a task of a real environment."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ratchet_client.events import Task
from streams.store.settings import Backend, LakeSettings, StoreSettings
from streams.store.writer import Store
from streams.trust.settings import QuotaSettings
from tests.builders.episodes import HOLDOUT, KAFKA


@pytest.fixture
def backend() -> Backend:
    """What the stores of `open_store` are in; the tests of the store itself have it both ways."""
    return Backend.DUCKDB


@pytest.fixture
def store_settings(backend: Backend, request: pytest.FixtureRequest, tmp_path: Path) -> StoreSettings:
    """A store of this test's own, which is not made yet."""
    lake = request.getfixturevalue("lake") if backend is Backend.DUCKLAKE else LakeSettings()
    return StoreSettings(backend=backend, path=tmp_path / "store.duckdb", lake=lake)


@pytest.fixture
def open_store_with(store_settings: StoreSettings) -> Iterator[Callable[[QuotaSettings], Store]]:
    """Opens the same store each time, after closing it; half of all tasks are held out."""
    opened: list[Store] = []

    def open_again(quota: QuotaSettings) -> Store:
        if opened:
            opened.pop().close()
        opened.append(Store.open(store_settings, HOLDOUT, KAFKA, quota))
        return opened[0]

    yield open_again
    if opened:
        opened.pop().close()


@pytest.fixture
def open_store(open_store_with: Callable[[QuotaSettings], Store]) -> Callable[[], Store]:
    return lambda: open_store_with(QuotaSettings())


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Store:
    return open_store()


@pytest.fixture
def task() -> Task:
    return Task(environment="textworld_express", task_id="twc/train/17", seed=17)
