"""The one way to keep a file of lines that is only ever appended: a line that was acknowledged is whole and on disk.

The audit log, the account of held-out tasks and the records of trials are such files. A line that a crash left
unfinished was never acknowledged: readers pass over it, and the next append removes it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from ratchet_client.crash_points import CrashPoint, reach
from ratchet_client.syncing import sync_folder


def end_of_lines(content: bytes) -> int:
    """Return where the last whole line ends.

    >>> end_of_lines(b"whole\\nunfin")
    6
    """
    return content.rfind(b"\n") + 1


def whole_lines(content: bytes) -> list[bytes]:
    """The lines but for an unfinished last one."""
    return content[: end_of_lines(content)].splitlines()


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[FileIO]:
    """The file, made where it is missing, while no other process has its lock. Not to be nested.

    Without `wait` it raises `BlockingIOError` at once where another process has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with FileIO(path, "a+") as file:
        if new:
            sync_folder(path.parent)
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file


def read_all(file: FileIO) -> bytes:
    """The whole content."""
    file.seek(0)
    return file.read() or b""


def append_lines(file: FileIO, end: int, lines: bytes) -> None:
    """Put whole `lines` at `end`, where the last whole line ends. When this returns, they are on disk.

    Raises `OSError`; the file is then as it was up to `end`.
    """
    file.truncate(end)
    reach(CrashPoint.LINES_APPEND_BEFORE)
    try:
        if file.write(lines) != len(lines):
            raise OSError(f"the disk took only a part of what was to be added to {file.name!r}")
        os.fsync(file.fileno())
    except OSError:
        file.truncate(end)
        raise
    reach(CrashPoint.LINES_APPEND_AFTER)
