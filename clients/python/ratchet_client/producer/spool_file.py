"""One SQLite file of a producer's spool: entries in the order of their appending, until they are acknowledged.

It lies in a folder of its own, beside a lock that tells whose it is. POSIX only: the lock is an `flock`.
"""

import fcntl
import logging
import os
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ratchet_client.crash_points import CrashPoint, reach

log = logging.getLogger(__name__)

LOCK = "lock"
# A file of another format has another name.
_FILE = "spool-v2.sqlite"
_ROW_BYTES = 24
# One process uses it, and needs no memory shared with others. The file shrinks with every entry that leaves it.
_SETTINGS = """
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA auto_vacuum = FULL;
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS entries (
    position INTEGER PRIMARY KEY, -- bytes of all entries before it
    key BLOB NOT NULL, value BLOB NOT NULL, signature BLOB NOT NULL, checksum INTEGER NOT NULL
);
"""
_EXTENT = f"""
SELECT
    (SELECT min(position) FROM entries),
    position + coalesce(length(key) + length(value) + length(signature), 0) + {_ROW_BYTES}
FROM entries ORDER BY position DESC LIMIT 1
"""
_FILE_BYTES = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"

# Held while a file is in use: SQLite's files must not be open in a process that is forked.
DISK_LOCK = threading.RLock()


@dataclass(frozen=True, slots=True)
class Entry:
    """One record on its way to the cluster. `signature` is empty where none is to be sent."""

    key: bytes
    value: bytes
    signature: bytes = b""

    @property
    def size(self) -> int:
        """Bytes in a queue, about."""
        return _ROW_BYTES + len(self.key) + len(self.value) + len(self.signature)

    @property
    def checksum(self) -> int:
        return zlib.crc32(self.signature, zlib.crc32(self.value, zlib.crc32(self.key)))


def up_to(limit_bytes: int, entries: Iterable[Entry]) -> list[Entry]:
    """The first of `entries`: as many as have `limit_bytes` in all, but at least one."""
    taken: list[Entry] = []
    for entry in entries:
        limit_bytes -= entry.size
        if taken and limit_bytes < 0:
            break
        taken.append(entry)
    return taken


class SpoolFile:
    """Entries on disk, owned by this process. Hold `DISK_LOCK`. Every method raises `OSError` and `sqlite3.Error`."""

    def __init__(self, folder: Path) -> None:
        """Claim a folder; `load` it if it is not new. Raises `BlockingIOError` when it is another process's."""
        self.folder = folder
        self.bytes_on_disk = 0
        self.damaged = False
        self._connection: sqlite3.Connection | None = None
        self._first = 0
        self._end = 0
        self._lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise

    @staticmethod
    def is_of_this_version(folder: Path) -> bool:
        return all(path.name.startswith((LOCK, _FILE)) for path in folder.iterdir())

    def load(self) -> None:
        """Find out what the file holds."""
        extent = self._connected().execute(_EXTENT).fetchone()
        self._first, self._end = extent or (0, 0)
        self._measure()

    @property
    def size(self) -> int:
        """Bytes of the entries that are not acknowledged."""
        return self._end - self._first

    def append(self, entries: Sequence[Entry], *, sync: bool) -> None:
        """Append all or, when it raises, none of `entries`. They survive the process, and with `sync` a power cut."""
        rows, end = [], self._end
        for entry in entries:
            rows.append((end, entry.key, entry.value, entry.signature, entry.checksum))
            end += entry.size
        with self._transaction(sync=sync) as connection:
            connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", rows)
        self._end = end
        self._measure()

    def head(self, limit_bytes: int) -> list[Entry]:
        """The oldest entries, `limit_bytes` at most in all but at least one; empty when there are none.

        Passes over entries that are damaged or gone, and logs how many bytes they had.
        """
        begin, taken = self._first, []
        while self.size and not (taken := up_to(limit_bytes, self._sound_entries())):
            after = "SELECT min(position) FROM entries WHERE position > ?"
            self._first = self._connected().execute(after, (self._first,)).fetchone()[0] or self._end
        if self._first > begin:
            log.warning("%s: %d bytes are damaged or gone, and are passed over", self.folder, self._first - begin)
        return taken

    def discard(self, entries: Sequence[Entry]) -> int:
        """Forget `entries`, which are the oldest, and say how many of them were here.

        When it raises, they are forgotten, but may come again after a restart.
        """
        count = 0
        for entry in entries:
            if not self.size:
                break
            self._first += entry.size
            count += 1
        return count

    def purge(self) -> None:
        """Give the space of forgotten entries back. Not synced: after a power cut they may come again."""
        with self._transaction(sync=False) as connection:
            connection.execute("DELETE FROM entries WHERE position < ?", (self._first,))
        self._measure()

    def skip_rest(self) -> None:
        """Read no more of it."""
        self._first = self._end

    def disconnect(self) -> None:
        """Close the file and keep it; the next use opens it again."""
        _CONNECTED.discard(self)
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def release(self) -> None:
        """Let another process have it."""
        self.disconnect()
        os.close(self._lock)

    def remove(self) -> None:
        """Remove the folder before it is released. No other process may claim it meanwhile."""
        self.disconnect()
        for path in sorted(self.folder.iterdir(), key=lambda path: path.name == LOCK):
            path.unlink()
        self.folder.rmdir()

    def set_aside(self) -> None:
        """Give the folder a name under which no process claims it, before it is released."""
        self.disconnect()
        aside = self.folder.rename(self.folder.with_suffix(".damaged"))
        (aside / LOCK).unlink()

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            path = self.folder / _FILE
            # SQLite would let others read it.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            connection.text_factory = bytes  # damage can make a text of a blob
            try:
                connection.executescript(_SETTINGS)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
            _CONNECTED.add(self)
        return self._connection

    @contextmanager
    def _transaction(self, *, sync: bool) -> Iterator[sqlite3.Connection]:
        connection = self._connected()
        connection.execute(f"PRAGMA synchronous = {'FULL' if sync else 'NORMAL'}")
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            reach(CrashPoint.SPOOL_COMMIT_BEFORE)
            connection.execute("COMMIT")
        finally:
            connection.rollback()  # does nothing behind a commit
        reach(CrashPoint.SPOOL_COMMIT_AFTER)

    def _measure(self) -> None:
        self.bytes_on_disk = self._connected().execute(_FILE_BYTES).fetchone()[0]

    def _sound_entries(self) -> Iterator[Entry]:
        """The entries up to the first that is damaged or missing."""
        at = self._first
        rows = self._connected().execute("SELECT * FROM entries WHERE position >= ? ORDER BY position", (at,))
        with closing(rows):
            try:
                for position, key, value, signature, checksum in rows:
                    if position != at or not all(isinstance(part, bytes) for part in (key, value, signature)):
                        return
                    entry = Entry(key, value, signature)
                    if entry.checksum != checksum:
                        return
                    yield entry
                    at += entry.size
            except sqlite3.DatabaseError:
                if at == self._first:
                    raise


_CONNECTED: set[SpoolFile] = set()


def _disconnect_all() -> None:
    DISK_LOCK.acquire()
    for file in list(_CONNECTED):
        file.disconnect()


os.register_at_fork(before=_disconnect_all, after_in_parent=DISK_LOCK.release, after_in_child=DISK_LOCK.release)
