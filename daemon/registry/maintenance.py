"""The lock that keeps a backup and an erasure of one home from coming into each other's way."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streams.errors import BackupError
from streams.runtime.json_lines import locked

_LOCK = ".maintenance.lock"


@contextmanager
def maintenance(home: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock. Raises `BackupError` where another process has it, and to `wait` is not asked for."""
    try:
        with locked(home / _LOCK, wait=wait):
            yield
    except BlockingIOError as error:
        raise BackupError(f"another backup or an erasure of {home} is under way: try again when it is over") from error
