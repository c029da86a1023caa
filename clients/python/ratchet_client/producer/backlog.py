"""The entries that the cluster has not acknowledged, as one queue: the older part on disk, the newer in memory.

The producer's agents put at one end, in any thread; its sender takes from the other.
"""

import sqlite3
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ratchet_client.errors import SpoolError
from ratchet_client.producer.spool import Spool
from ratchet_client.producer.spool_file import DISK_LOCK, Entry, up_to

_CHUNK_BYTES = 2**20


class Backlog:
    """A bounded queue that keeps the oldest when it is full. Thread-safe.

    Its order is that of `put`, or of `put_on_disk`; use one of the two.
    """

    def __init__(self, memory_bytes: int, spool: Spool | None) -> None:
        self._limit = memory_bytes
        self._closed = False
        self._spool = spool
        self._memory: deque[Entry] = deque()
        self._memory_bytes = 0
        self._memory_lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._memory) or self.spooled_bytes > 0

    @property
    def queued(self) -> int:
        """Entries in memory."""
        return len(self._memory)

    @property
    def spooled_bytes(self) -> int:
        return self._spool.size if self._spool else 0

    def open(self) -> None:
        """Claim what ended processes left in the spool. Raises `SpoolError`.

        Not while entries of `head` are on their way: what ended processes left comes before them.
        """
        with _disk():
            if self._spool is not None and not self._closed:
                self._spool.open()

    def put(self, entry: Entry) -> bool:
        """Keep `entry` in memory; False when it is full."""
        with self._memory_lock:
            if self._memory_bytes + entry.size > self._limit:
                return False
            self._memory.append(entry)
            self._memory_bytes += entry.size
            return True

    def put_on_disk(self, entry: Entry) -> bool:
        """Return when `entry` is durable; False when it is full. Raises `SpoolError`: it is not kept then."""
        assert self._spool is not None
        with _disk():
            return not self._closed and self._spool.append([entry], sync=True) == 1

    def spill(self) -> None:
        """Move what is in memory to the disk, as far as that is open and has room.

        Raises `SpoolError`: the rest stays in memory.
        """
        if self._spool is None or not self._spool.is_open:
            return
        with _disk():
            while chunk := self._oldest_in_memory(_CHUNK_BYTES):
                written = self._spool.append(chunk)
                self._forget_in_memory(written)
                if written < len(chunk):
                    return

    def head(self, limit_bytes: int) -> list[Entry]:
        """The oldest entries, about `limit_bytes` in all but at least one. Raises `SpoolError`."""
        with _disk():
            spooled = self._spool.head(limit_bytes) if self._spool else []
            return spooled or self._oldest_in_memory(limit_bytes)

    def discard(self, entries: Sequence[Entry]) -> None:
        """Forget `entries`, which are the oldest, wherever they are by now.

        Raises `SpoolError`: those on disk may come again after a restart.
        """
        with _disk():
            if self._closed:
                return
            spooled = self._spool.discard(entries) if self._spool else 0
            self._forget_in_memory(len(entries) - spooled)

    def refuse(self) -> None:
        """Take no more in memory."""
        with self._memory_lock:
            self._limit = 0

    def close(self) -> None:
        """Give the spool's files back, for good. What is acknowledged later is sent again by their next owner.

        Raises `SpoolError`.
        """
        with _disk():
            self._closed = True
            if self._spool is not None:
                self._spool.close()

    def leave_to_parent(self) -> None:
        """In a forked child: let go of the files, which are another process's."""
        if self._spool is not None:
            self._spool.release()

    def _oldest_in_memory(self, limit_bytes: int) -> list[Entry]:
        with self._memory_lock:
            return up_to(limit_bytes, self._memory)

    def _forget_in_memory(self, count: int) -> None:
        with self._memory_lock:
            for _ in range(count):
                self._memory_bytes -= self._memory.popleft().size


@contextmanager
def _disk() -> Iterator[None]:
    """Keeps the order as well. `put` does without: a slow disk must not slow an agent."""
    try:
        with DISK_LOCK:
            yield
    except (OSError, sqlite3.Error) as error:
        raise SpoolError(f"{error}; is the disk full, or is the folder not writable?") from error
