"""The one way to write a file, and a folder, that a crash must not tear."""

import errno
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ratchet_client.crash_points import CrashPoint, reach
from ratchet_client.syncing import sync, sync_folder


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data`, as `replacing` does."""
    with replacing(path, mode) as file:
        file.write(data)


@contextmanager
def replacing(path: Path, mode: int = 0o600) -> Iterator[BinaryIO]:
    """A file that replaces `path` at the end: after a crash at any instant that holds all of the old bytes or the new.

    A temporary file in the same folder is written and synced, renamed over `path`, and the folder synced, so that the
    rename itself survives a power cut. The folder is made where it is missing. Raises `OSError`; after that, and after
    any other exception inside, `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            yield file
            file.flush()
            os.fsync(descriptor)
        reach(CrashPoint.FILE_RENAME_BEFORE)
        os.replace(temporary, path)
        reach(CrashPoint.FILE_RENAME_AFTER)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_folder(path.parent)


def secret_key(path: Path) -> bytes:
    """The 32 random bytes in the file `path`, which only its owner may read; made there the first time.

    Its SHA-256 is beside it, for `sha256sum --check`. Processes that ask for it at the same time get the same.
    """
    new = not path.exists()
    key = secret_file(path, lambda: secrets.token_bytes(32))
    if new:
        write_atomically(checksum_path(path), checksum(path, key))
    return key


def checksum_path(path: Path) -> Path:
    """The file beside `path` that holds its checksum."""
    return path.with_name(f"{path.name}.sha256")


def checksum(path: Path, content: bytes) -> bytes:
    """The line that `sha256sum` writes for a file `path` of that content."""
    return f"{hashlib.sha256(content).hexdigest()}  {path.name}\n".encode()


def secret_file(path: Path, make: Callable[[], bytes]) -> bytes:
    """The content of the file `path`, which only its owner may read; it is what `make` returns the first time.

    Processes that ask for it at the same time get the same.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(make())
                file.flush()
                os.fsync(descriptor)
            # Unlike a rename, a link never replaces a key that another process has made.
            with suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            os.unlink(temporary)
        sync_folder(path.parent)
    return path.read_bytes()


@contextmanager
def new_folder(parent: Path) -> Iterator[Path]:
    """A folder to fill, below `parent`, for `move_into_place`; what was not moved away at the end is removed.

    `parent` is made where it is missing. After a crash a hidden `.new-…` may be left.
    """
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".new-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def move_into_place(folder: Path, path: Path) -> None:
    """Rename `folder` to `path`, on the same file system: after a crash at any instant there is all of it or nothing.

    Every file and folder in it is synced first. A folder `path` that has something in it stays, and `folder` where it
    is: for folders that are named by what they hold. Raises `OSError`.
    """
    for place, _, names in os.walk(folder):
        for name in names:
            sync(Path(place, name), os.O_RDONLY)
        sync_folder(Path(place))
    try:
        os.rename(folder, path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    sync_folder(path.parent)
