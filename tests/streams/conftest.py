"""A store on a real file, and environments of a third party."""

import inspect
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from importlib import invalidate_caches
from pathlib import Path

import pytest

from streams.holdout import HoldoutSettings
from streams.quota import QuotaSettings
from streams.sandboxes.protocol import ENVIRONMENTS
from streams.settings import KafkaSettings, StoreSettings
from streams.store import Store
from tests.streams.faulty import ratchet_faulty


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


@pytest.fixture(scope="session")
def faulty_environments() -> Iterator[tuple[str, ...]]:
    """The names `faulty_…` of environments that are installed as a third party's package would be."""
    site = Path(sysconfig.get_path("purelib"))
    module, metadata = site / "ratchet_faulty.py", site / "ratchet_faulty-1.dist-info"
    classes = [
        name
        for name, member in vars(ratchet_faulty).items()
        if inspect.isclass(member) and member.__module__ == ratchet_faulty.__name__
    ]
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: ratchet-faulty\nVersion: 1\n")
    lines = [f"faulty_{name.lower()} = ratchet_faulty:{name}" for name in classes]
    (metadata / "entry_points.txt").write_text("\n".join([f"[{ENVIRONMENTS}]", *lines]) + "\n")
    shutil.copy(ratchet_faulty.__file__, module)
    invalidate_caches()
    yield tuple(f"faulty_{name.lower()}" for name in classes)
    module.unlink()
    shutil.rmtree(metadata)
