"""A store on a real file."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streams.holdout import HoldoutSettings
from streams.settings import KafkaSettings, StoreSettings
from streams.store import Store


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Opens the same file each time, after closing it; half of all tasks are held out."""
    opened: list[Store] = []

    def open_again() -> Store:
        if opened:
            opened.pop().close()
        settings = StoreSettings(path=tmp_path / "store.duckdb")
        opened.append(Store.open(settings, HoldoutSettings(selection=0.5, confirmation=0.0), KafkaSettings()))
        return opened[0]

    yield open_again
    if opened:
        opened.pop().close()


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Store:
    return open_store()
