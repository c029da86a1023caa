"""The one way to write a file that a crash must not tear."""

import os
import tempfile
from pathlib import Path

from streams.runtime.crash_points import CrashPoint, reach


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace `path` by `data`: after a crash at any instant the file holds all of the old bytes or all of the new.

    A temporary file in the same folder is written and synced, renamed over `path`, and the folder synced, so that the
    rename itself survives a power cut. The folder is made where it is missing. Raises `OSError`, and then `path` is as
    it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # mkstemp makes it private; readers of a home may be other users
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        reach(CrashPoint.FILE_RENAME_BEFORE)
        os.replace(temporary, path)
        reach(CrashPoint.FILE_RENAME_AFTER)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable: what was created, renamed or removed in it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
