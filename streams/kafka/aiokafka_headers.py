"""Header names that are no UTF-8. aiokafka never gets past the first one, which would end the stream for everybody.

Brokers let such names through. `streams.kafka.worker` calls this once, before any consumer is made.
"""

from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.legacy_records import LegacyRecordBatch
from aiokafka.record.memory_records import _MemoryRecordsPy

_FIRST_WITH_HEADERS = 2


def accept_any_header_name() -> None:
    """From now on consumers read an undecodable header name with U+FFFD in the place of what is wrong with it."""
    fetcher.MemoryRecords = _Fetched


class _Fetched(_MemoryRecordsPy):  # type: ignore[misc] # final for type checkers, and the place to step in
    """What a fetch brought from one partition, batch by batch."""

    def next_batch(self) -> Any:
        content = self._next_slice
        if content is None:
            return None
        self._cache_next()
        magic = content[self.MAGIC_OFFSET]
        return _Batch(content) if magic >= _FIRST_WITH_HEADERS else LegacyRecordBatch(content, magic)


class _Batch:
    """aiokafka's compiled batch, or its plain one when a name cannot be decoded."""

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._compiled = DefaultRecordBatch(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiled, name)

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(list(self._compiled))
        except UnicodeDecodeError:
            return iter(_LenientBatch(self._content))


class _LenientBatch(_DefaultRecordBatchPy):  # type: ignore[misc] # as above
    _buffer: bytearray

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer = _LenientBytes(self._buffer)


class _LenientBytes(bytearray):
    """Bytes whose parts can always be decoded."""

    def __getitem__(self, place: Any) -> Any:
        part = super().__getitem__(place)
        return _LenientBytes(part) if isinstance(place, slice) else part

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        return super().decode(encoding, "replace")
