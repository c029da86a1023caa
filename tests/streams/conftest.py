"""A store on a real file, and a task of a real environment."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ratchet_client.events import Task
from streams.store.settings import StoreSettings
from streams.store.writer import Store
from streams.trust.settings import QuotaSettings
from tests.builders.episodes import HOLDOUT, KAFKA


@pytest.fixture
def open_store_with(tmp_path: Path) -> Iterator[Callable[[QuotaSettings], Store]]:
    """Opens the same file each time, after closing it; half of all tasks are held out."""
    opened: list[Store] = []

    def open_again(quota: QuotaSettings) -> Store:
        if opened:
            opened.pop().close()
        settings = StoreSettings(path=tmp_path / "store.duckdb")
        opened.append(Store.open(settings, HOLDOUT, KAFKA, quota))
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
