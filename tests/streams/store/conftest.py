"""A store on a real file."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streams.kafka.settings import KafkaSettings
from streams.store.settings import StoreSettings
from streams.store.writer import Store
from streams.trust.holdout import HoldoutSettings
from streams.trust.quota import QuotaSettings


@pytest.fixture
def open_store_with(tmp_path: Path) -> Iterator[Callable[[QuotaSettings], Store]]:
    """Opens the same file each time, after closing it; half of all tasks are held out."""
    opened: list[Store] = []

    def open_again(quota: QuotaSettings) -> Store:
        if opened:
            opened.pop().close()
        settings = StoreSettings(path=tmp_path / "store.duckdb")
        holdout = HoldoutSettings(selection=0.5, confirmation=0.0)
        opened.append(Store.open(settings, holdout, KafkaSettings(), quota))
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
