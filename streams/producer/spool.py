"""A producer's backlog on disk: it survives the process, and an entry leaves it only once it is acknowledged.

`backlog.py` keeps here what the cluster does not have yet. POSIX only: folders are owned by file locks.
"""

import fcntl
import logging
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from streams.ids import uuid7
from streams.producer.segment import Entry, Segment, up_to
from streams.runtime.crash_points import CrashPoint, reach
from streams.runtime.files import sync_folder

log = logging.getLogger(__name__)

_SEGMENT_BYTES = 2**20
_LOCK = "lock"
_SEGMENTS = "*.spool"


class Spool:
    """Entries in the order of their appending. Not thread-safe.

    Every spool writes in a sub-folder of its own under `root`, and takes over those whose process has ended. A process
    may be killed at any instant: what it had appended and not discarded is there after the next `open`.
    """

    def __init__(self, root: Path, limit_bytes: int) -> None:
        """Touches nothing until `open`. Entries beyond `limit_bytes` are not taken."""
        self.size = 0
        self._root = root
        self._limit = limit_bytes
        self._folder: Path | None = None
        self._lock = -1
        self._segments: deque[Segment] = deque()
        self._stamp = 0

    @property
    def is_open(self) -> bool:
        return self._folder is not None

    def open(self) -> None:
        """Claim a sub-folder and what ended processes left; does nothing the second time. Raises `OSError`."""
        if self.is_open:
            return
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = self._root / uuid7()
        with _locked(self._root / _LOCK):
            orphans = sorted(lock.parent for lock in self._root.glob(f"*/{_LOCK}"))
            folder.mkdir(mode=0o700)
            self._lock = _try_lock(folder / _LOCK)
            try:
                for orphan in orphans:
                    _take_over(orphan, folder)
                sync_folder(self._root)
                self._segments = deque(_load(folder))
            except OSError:
                self._unlock()
                raise
        self._folder = folder
        self.size = sum(segment.size for segment in self._segments)
        if self._segments:
            self._stamp = _stamp_of(self._segments[-1])

    def append(self, entries: Sequence[Entry], *, sync: bool = False) -> int:
        """Append as many of `entries` as there is room for, and say how many.

        They survive the process, and with `sync` the machine. Raises `OSError`, and then has appended none.
        """
        self.open()
        fitting: list[Entry] = []
        size = 0
        for entry in entries:
            size += entry.size
            if self.size + size > self._limit:
                break
            fitting.append(entry)
        if fitting:
            segment = self._segment_with_room(sync)
            segment.append(fitting, sync=sync)
            self.size += sum(entry.size for entry in fitting)
        return len(fitting)

    def head(self, limit_bytes: int) -> list[Entry]:
        """The oldest entries, `limit_bytes` at most in all but at least one; empty when there are none.

        What is damaged or torn is passed over and logged. Raises `OSError`.
        """
        while self.size:
            segment = self._segments[0]
            try:
                entries = up_to(limit_bytes, segment.read())
            except FileNotFoundError:
                segment.seal()
                entries = []
            if entries:
                return entries
            log.warning("%s: %d bytes are torn, damaged or gone, and are passed over", segment.path, segment.size)
            self.size -= segment.size
            segment.start = segment.end
            self._free(segment)
        return []

    def discard(self, entries: Sequence[Entry]) -> int:
        """Forget `entries`, which are the oldest, and say how many of them there were.

        Raises `OSError`: they are forgotten then, but may come again after a restart.
        """
        done = 0
        touched: list[Segment] = []
        for entry in entries:
            if not self.size:
                break
            segment = next(segment for segment in self._segments if segment.size)
            segment.start += entry.size
            self.size -= entry.size
            done += 1
            if segment not in touched:
                touched.append(segment)
        for segment in touched:
            if segment.size:
                segment.save_start()
            else:
                self._free(segment)
        return done

    def close(self) -> None:
        """Give the sub-folder back: an empty one is removed, another waits for its next owner. Raises `OSError`."""
        if self._folder is None:
            return
        with _locked(self._root / _LOCK):
            for segment in self._segments:
                if not segment.size:
                    segment.path.unlink(missing_ok=True)
            _remove_if_empty(self._folder)
            self.abandon()

    def abandon(self) -> None:
        """Close the files and touch nothing else, as a forked child must."""
        for segment in self._segments:
            segment.seal()
        self._segments.clear()
        self._unlock()
        self._folder = None
        self.size = 0

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _segment_with_room(self, sync: bool) -> Segment:
        assert self._folder is not None
        if self._segments:
            last = self._segments[-1]
            if last.appendable and last.end < _SEGMENT_BYTES:
                return last
            last.seal()
        # Names tell the order, also among those of several processes.
        self._stamp = max(time.time_ns(), self._stamp + 1)
        segment = Segment.create(self._folder / _SEGMENTS.replace("*", f"{self._stamp:020d}-{self._folder.name}"))
        if sync:
            sync_folder(self._folder)
        self._segments.append(segment)
        return segment

    def _free(self, segment: Segment) -> None:
        """Nothing of `segment` is needed any more."""
        if segment.appendable:
            segment.clear()
        else:
            self._segments.remove(segment)
            segment.path.unlink(missing_ok=True)


def _stamp_of(segment: Segment) -> int:
    return int(segment.path.name.partition("-")[0])


def _load(folder: Path) -> Iterator[Segment]:
    for path in sorted(folder.glob(_SEGMENTS)):
        segment = Segment.load(path)
        if segment is None:
            log.warning("%s is not in the format of this version and is left alone", path)
        elif segment.size:
            yield segment
        else:
            path.unlink()


def _take_over(orphan: Path, folder: Path) -> None:
    """Move the segments of `orphan` into `folder` unless its process lives. The root must be locked."""
    lock = _try_lock(orphan / _LOCK)
    if lock < 0:
        return
    try:
        for path in orphan.glob(_SEGMENTS):
            reach(CrashPoint.SPOOL_RENAME_BEFORE)
            path.rename(folder / path.name)
            reach(CrashPoint.SPOOL_RENAME_AFTER)
        _remove_if_empty(orphan)
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.glob(_SEGMENTS)):
        (folder / _LOCK).unlink()
        folder.rmdir()


def _try_lock(path: Path) -> int:
    """The descriptor of the locked file, or -1 when another process holds the lock."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return -1
    return descriptor


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        # A child that was forked meanwhile has the descriptor too: closing this one alone would leave it locked.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
