"""Installs the faulty environments as a third party's package would be, so that sandbox processes find them."""

import fcntl
import inspect
import os
import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import invalidate_caches
from pathlib import Path

from streams.environments.registry import ENTRY_POINTS
from streams.runtime.files import write_atomically
from tests.faulty import ratchet_faulty
from tests.locked import locked


@contextmanager
def faulty_package() -> Iterator[tuple[str, ...]]:
    """The names `faulty_…` of what is installed meanwhile.

    Test processes side by side share one installation, which the last of them removes: each holds a shared lock on it,
    which ends with the process, however it ends.
    """
    site = Path(sysconfig.get_path("purelib"))
    module, metadata = site / "ratchet_faulty.py", site / "ratchet_faulty-1.dist-info"
    classes = [
        name
        for name, member in vars(ratchet_faulty).items()
        if inspect.isclass(member) and member.__module__ == ratchet_faulty.__name__
    ]
    lines = [f"faulty_{name.lower()} = ratchet_faulty:{name}" for name in classes]
    with locked(site):
        metadata.mkdir(exist_ok=True)
        write_atomically(metadata / "METADATA", b"Metadata-Version: 2.1\nName: ratchet-faulty\nVersion: 1\n")
        write_atomically(metadata / "entry_points.txt", "\n".join([f"[{ENTRY_POINTS}]", *lines, ""]).encode())
        write_atomically(module, Path(ratchet_faulty.__file__).read_bytes())
        use = os.open(metadata, os.O_RDONLY)
        fcntl.flock(use, fcntl.LOCK_SH)
    invalidate_caches()
    try:
        yield tuple(f"faulty_{name.lower()}" for name in classes)
    finally:
        with locked(site):
            try:
                fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # another process still plays with it
            else:
                module.unlink(missing_ok=True)
                shutil.rmtree(metadata)
            os.close(use)
