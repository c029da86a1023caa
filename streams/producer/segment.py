"""One file of a producer's spool: entries behind a header that says how far they are acknowledged.

The header is a magic number and the offset of the first entry that is not acknowledged. An entry is the CRC-32 of all
that follows in it, the lengths of its three parts, and the parts.
"""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

_MAGIC = b"RTCHSPL1"
_HEADER = struct.Struct(">8sQ")
_CRC = struct.Struct(">I")
_LENGTHS = struct.Struct(">III")
_PREFIX_BYTES = _CRC.size + _LENGTHS.size


@dataclass(frozen=True, slots=True)
class Entry:
    """One record on its way to the cluster. `signature` is empty where none is to be sent."""

    key: bytes
    value: bytes
    signature: bytes = b""

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return _PREFIX_BYTES + len(self.key) + len(self.value) + len(self.signature)

    def encode(self) -> bytes:
        parts = (self.key, self.value, self.signature)
        body = b"".join((_LENGTHS.pack(*map(len, parts)), *parts))
        return _CRC.pack(zlib.crc32(body)) + body


def up_to(limit_bytes: int, entries: Iterable[Entry]) -> list[Entry]:
    """The first of `entries`: as many as have `limit_bytes` on disk in all, but at least one."""
    taken: list[Entry] = []
    for entry in entries:
        limit_bytes -= entry.size
        if taken and limit_bytes < 0:
            break
        taken.append(entry)
    return taken


@dataclass(slots=True, eq=False)
class Segment:
    """A file, and the range of it, `start` to `end`, that holds entries which are not acknowledged.

    Every method raises `OSError`.
    """

    path: Path
    start: int = _HEADER.size
    end: int = _HEADER.size
    _descriptor: int = field(default=-1, repr=False)

    @classmethod
    def create(cls, path: Path) -> Self:
        """A new file to append to."""
        segment = cls(path)
        segment._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        _write_all(segment._descriptor, _HEADER.pack(_MAGIC, _HEADER.size), 0)
        return segment

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """The file as its process left it, to read from; None if it has another format or lost its header."""
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or not header.startswith(_MAGIC):
            return None
        end = path.stat().st_size
        return cls(path, min(_HEADER.unpack(header)[1], end), end)

    @property
    def size(self) -> int:
        """Bytes that are not acknowledged."""
        return self.end - self.start

    @property
    def appendable(self) -> bool:
        return self._descriptor >= 0

    def append(self, entries: Iterable[Entry], *, sync: bool) -> None:
        """Append all or, when it raises, none of `entries`; with `sync` they survive a power cut."""
        data = b"".join(entry.encode() for entry in entries)
        # Half of a write that failed lies beyond the end, where the next one goes.
        _write_all(self._descriptor, data, self.end)
        if sync:
            os.fsync(self._descriptor)
        self.end += len(data)

    def read(self) -> Iterator[Entry]:
        """The entries from `start` on, up to the first that is torn or damaged."""
        at = self.start
        with self.path.open("rb") as file:
            file.seek(at)
            while self.end - at >= _PREFIX_BYTES:
                prefix = file.read(_PREFIX_BYTES)
                if len(prefix) < _PREFIX_BYTES:
                    return
                key, value, signature = _LENGTHS.unpack_from(prefix, _CRC.size)
                at += _PREFIX_BYTES + key + value + signature
                if at > self.end:
                    return
                parts = file.read(key + value + signature)
                if zlib.crc32(parts, zlib.crc32(prefix[_CRC.size :])) != _CRC.unpack_from(prefix)[0]:
                    return
                yield Entry(parts[:key], parts[key : key + value], parts[key + value :])

    def save_start(self) -> None:
        """Note in the file how far it is acknowledged. Not synced: after a power cut, entries may come again."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            _write_all(descriptor, _HEADER.pack(_MAGIC, self.start), 0)
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        """Forget all entries of an appendable file, and give their room back."""
        os.ftruncate(self._descriptor, _HEADER.size)
        _write_all(self._descriptor, _HEADER.pack(_MAGIC, _HEADER.size), 0)
        self.start = self.end = _HEADER.size

    def seal(self) -> None:
        """Append no more."""
        if self.appendable:
            os.close(self._descriptor)
            self._descriptor = -1


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written
