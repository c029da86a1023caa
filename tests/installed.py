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
from types import ModuleType

from examples import tool_environment
from streams.environments.registry import ENTRY_POINTS
from streams.runtime.files import write_atomically
from tests.faulty import ratchet_faulty, ratchet_faulty_tools
from tests.locked import locked

# Each under the name that it is installed by; the example is what the faulty tools are made of.
_INSTALLED = {
    "ratchet_faulty": ratchet_faulty,
    "ratchet_faulty_tools": ratchet_faulty_tools,
    "ratchet_example": tool_environment,
}


# Sandboxes may run as another user.
_READABLE = 0o644


def _environments(module: ModuleType) -> list[str]:
    return [
        name
        for name, member in vars(module).items()
        if inspect.isclass(member) and member.__module__ == module.__name__ and hasattr(member, "capabilities")
    ]


def _source(module: ModuleType) -> bytes:
    text = Path(module.__file__ or "").read_text()
    return text.replace(f"from {tool_environment.__name__} import", "from ratchet_example import").encode()


@contextmanager
def faulty_package() -> Iterator[tuple[str, ...]]:
    """The names `faulty_…` of what is installed meanwhile.

    Test processes side by side share one installation, which the last of them removes: each holds a shared lock on it,
    which ends with the process, however it ends.
    """
    site = Path(sysconfig.get_path("purelib"))
    metadata = site / "ratchet_faulty-1.dist-info"
    entries = {
        f"faulty_{environment.lower()}": f"{name}:{environment}"
        for name, module in _INSTALLED.items()
        for environment in _environments(module)
    }
    lines = [f"{name} = {member}" for name, member in entries.items()]
    with locked(site):
        metadata.mkdir(exist_ok=True)
        metadata.chmod(0o755)
        about = b"Metadata-Version: 2.1\nName: ratchet-faulty\nVersion: 1\n"
        write_atomically(metadata / "METADATA", about, _READABLE)
        write_atomically(
            metadata / "entry_points.txt", "\n".join([f"[{ENTRY_POINTS}]", *lines, ""]).encode(), _READABLE
        )
        for name, module in _INSTALLED.items():
            write_atomically(site / f"{name}.py", _source(module), _READABLE)
        use = os.open(metadata, os.O_RDONLY)
        fcntl.flock(use, fcntl.LOCK_SH)
    invalidate_caches()
    try:
        yield tuple(entries)
    finally:
        with locked(site):
            try:
                fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # another process still plays with it
            else:
                for name in _INSTALLED:
                    (site / f"{name}.py").unlink(missing_ok=True)
                shutil.rmtree(metadata)
            os.close(use)
