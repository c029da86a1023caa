"""Installs the faulty environments as a third party's package would be, so that sandbox processes find them."""

import inspect
import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import invalidate_caches
from pathlib import Path

from streams.environments.registry import ENTRY_POINTS
from tests.faulty import ratchet_faulty


@contextmanager
def faulty_package() -> Iterator[tuple[str, ...]]:
    """The names `faulty_…` of what is installed meanwhile."""
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
    (metadata / "entry_points.txt").write_text("\n".join([f"[{ENTRY_POINTS}]", *lines]) + "\n")
    shutil.copy(ratchet_faulty.__file__, module)
    invalidate_caches()
    try:
        yield tuple(f"faulty_{name.lower()}" for name in classes)
    finally:
        module.unlink(missing_ok=True)
        shutil.rmtree(metadata, ignore_errors=True)
