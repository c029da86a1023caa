"""A producer's backlog on disk: it survives the process, and an entry leaves it only once it is acknowledged.

`backlog.py` keeps here what the cluster does not have yet.
"""

import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ratchet_client.ids import uuid7
from ratchet_client.producer.spool_file import LOCK, Entry, SpoolFile
from ratchet_client.syncing import sync_folder

log = logging.getLogger(__name__)

# The last two are what a damaged header comes to: an unknown format, or one that is only to be read.
_DAMAGE = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR", "SQLITE_READONLY")


class Spool:
    """Entries in the order of their appending. Not thread-safe. Methods raise `OSError` and `sqlite3.Error`.

    A spool takes over the files under `root` whose processes have ended, and appends to the last of them, or makes one
    when there is none. A process may be killed at any instant: what it had appended and not discarded is there after
    the next `open`.
    """

    def __init__(self, root: Path, limit_bytes: int) -> None:
        """Touches nothing until `open`. Its files grow to about `limit_bytes`, and SQLite's logs beside them."""
        self.is_open = False
        self._root = root
        self._limit = limit_bytes
        self._files: list[SpoolFile] = []

    @property
    def size(self) -> int:
        """Bytes of the entries."""
        return sum(file.size for file in self._files)

    def open(self) -> None:
        """Claim what ended processes left; does nothing the second time."""
        if self.is_open:
            return
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._root_locked():
            try:
                for lock in sorted(self._root.glob(f"*/{LOCK}")):
                    self._take_over(lock.parent)
            except BaseException:
                self.release()
                raise
        self.is_open = True

    def append(self, entries: Sequence[Entry], *, sync: bool = False) -> int:
        """Append as many of `entries` as the limit leaves space for, and return how many.

        They survive the process, and with `sync` the machine. When it raises, it has appended none.
        """
        self.open()
        room = self._limit - sum(file.bytes_on_disk for file in self._files)
        fitting: list[Entry] = []
        for entry in entries:
            room -= entry.size
            if room < 0:
                break
            fitting.append(entry)
        if fitting:
            file = self._file_to_append_to()
            try:
                file.append(fitting, sync=sync)
            except sqlite3.DatabaseError as error:
                _note_damage(file, error)
                raise
        return len(fitting)

    def head(self, limit_bytes: int) -> list[Entry]:
        """The oldest entries, `limit_bytes` at most in all but at least one; empty when there are none.

        What is damaged is passed over and logged.
        """
        for file in list(self._files):
            try:
                entries = file.head(limit_bytes)
            except sqlite3.DatabaseError as error:
                _note_damage(file, error)
                file.skip_rest()
                continue
            if entries:
                return entries
        return []

    def discard(self, entries: Sequence[Entry]) -> int:
        """Forget `entries`, which are the oldest, and say how many of them there were.

        When it raises, they are forgotten, but may come again after a restart.
        """
        # They are in one file: `head` gives those of one, and what comes from memory is appended to one.
        file = next((file for file in self._files if file.size), None)
        if file is None:
            return 0
        count = file.discard(entries)
        try:
            file.purge()
        except sqlite3.DatabaseError as error:
            _note_damage(file, error)
        return count

    def close(self) -> None:
        """Give the files back: an empty one is removed, a damaged one set aside, another waits for its next owner."""
        if self.is_open:
            with self._root_locked():
                for file in self._files:
                    if file.damaged:
                        file.set_aside()
                    elif not file.size:
                        file.remove()
                self.release()

    def release(self) -> None:
        """Let go of the files as they are. A forked child does so, which leaves them to its parent."""
        for file in self._files:
            file.release()
        self._files.clear()
        self.is_open = False

    def _take_over(self, folder: Path) -> None:
        if not SpoolFile.is_of_this_version(folder):
            log.warning(
                "%s is not in the format of this version and is left alone; start an agent of the version that wrote "
                "it, which sends its events, or remove the folder",
                folder,
            )
            return
        try:
            file = SpoolFile(folder)
        except BlockingIOError:
            return
        self._files.append(file)
        try:
            file.load()
        except sqlite3.DatabaseError as error:
            _note_damage(file, error)
        # Few files may be open at once, and many processes may have ended.
        file.disconnect()

    def _file_to_append_to(self) -> SpoolFile:
        if not self._files or self._files[-1].damaged:
            folder = self._root / uuid7()
            with self._root_locked():
                folder.mkdir(mode=0o700)
                sync_folder(self._root)
                self._files.append(SpoolFile(folder))
        return self._files[-1]

    @contextmanager
    def _root_locked(self) -> Iterator[None]:
        descriptor = os.open(self._root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            # A child that was forked meanwhile has the descriptor too: closing this one alone would leave it locked.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def _note_damage(file: SpoolFile, error: sqlite3.DatabaseError) -> None:
    """Have nothing more written to a damaged file. Raises `error` if it tells of anything else."""
    if not getattr(error, "sqlite_errorname", "").startswith(_DAMAGE):
        raise error
    if not file.damaged:
        file.damaged = True
        log.error(
            "%s is damaged: %s; events are sent from it as far as it can be read, and at the end it is renamed to "
            "*.damaged; `sqlite3 FILE .recover` reads what is left of it",
            file.folder,
            error,
        )
