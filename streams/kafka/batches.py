"""Batches as they lie in the log, read so that none of them stops its partition. The workers' consumers use it.

A batch that can never be read, since its compression or its structure is broken, becomes one `StandIn`, which goes the
way of every record that is refused. A transaction's marker becomes one too, so that the offset it takes is not taken
for a lost record. A batch whose codec is not installed is an error: its records are good, and wait in the log.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.legacy_records import LegacyRecordBatch
from aiokafka.record.memory_records import _MemoryRecordsPy

from ratchet_client.errors import BrokerError, ConfigurationError
from streams.kafka.decompression import CODECS, decompress

# Base offset, length, epoch, magic, checksum, attributes, last offset's delta, two timestamps, producer's id and epoch,
# sequence, number of records (https://kafka.apache.org/documentation/#recordbatch).
_HEADER = struct.Struct(">qiibIhiqqqhii")
_LAST_DELTA, _COUNT = 6, 12
_MAGIC_AT, _OLD_ATTRIBUTES_AT, _ATTRIBUTES_AT = 16, 17, 22
_CODEC = 0x07
_FIRST_WITH_HEADERS = 2


@dataclass(frozen=True, slots=True)
class StandIn:
    """Stands for the offsets from `first` to `offset`, which hold no record that can be read.

    `unreadable` says why, and `value` is then the batch as it lies in the log; without it they are a transaction's
    marker.
    """

    first: int
    offset: int
    unreadable: str | None = None
    value: bytes | None = None
    key: None = None
    headers: tuple[()] = ()
    timestamp: int = 0
    timestamp_type: int = 0

    @property
    def serialized_value_size(self) -> int:
        return len(self.value or b"")


def read_every_batch() -> None:
    """From now on aiokafka's consumers give a `StandIn` for what is not a record, and read any name of a header."""
    fetcher.MemoryRecords = _Fetched
    fetcher.PartitionRecords = _Partition


class _Fetched(_MemoryRecordsPy):  # type: ignore[misc] # final for type checkers, and the place to step in
    """The batches of one fetch of a partition, as bytes."""

    def next_batch(self) -> Any:
        content = self._next_slice
        self._cache_next()
        return content


class _Partition(PartitionRecords):  # type: ignore[misc] # the package has no types
    """The records of one fetch of a partition, and stand-ins between them."""

    next_fetch_offset: int
    # Per partition, the content whose checksum was wrong when it was last fetched. A fetch is an object of its own.
    suspects: ClassVar[dict[Any, bytes]] = {}

    def _unpack_records(self) -> Iterator[Any]:
        while self._records.has_next():
            content = self._records.next_batch()
            batch = self._open(content)
            sound = not self._check_crcs or batch.validate_crc()
            if not sound and self.suspects.get(self._tp) != content:
                # It may have been damaged on its way here: what is left of this fetch is given up, and fetched again.
                self.suspects[self._tp] = bytes(content)
                return
            self.suspects.pop(self._tp, None)
            following = batch.next_offset
            if sound and batch.is_control_batch:
                marker = StandIn(self.next_fetch_offset, following - 1)
                self.next_fetch_offset = following
                yield marker
                continue
            try:
                records = self._decoded(content, batch, sound)
            except ConfigurationError as error:
                raise ConfigurationError(f"{self._where()} cannot be read: {error}") from error
            except Exception as error:  # noqa: BLE001 - each codec has exceptions of its own
                broken = self._unreadable(content, batch, sound, error)
                self.next_fetch_offset = following
                yield broken
                continue
            for record in records:
                if record.offset >= self.next_fetch_offset:
                    self.next_fetch_offset = record.offset + 1
                    yield self._consumer_record(self._tp, record)
            # Compaction may have removed the last records of the batch.
            self.next_fetch_offset = max(self.next_fetch_offset, following)

    def _open(self, content: memoryview) -> Any:
        """The batch, of which nothing but the header is read yet. Without a header its end is unknown."""
        magic = content[_MAGIC_AT] if len(content) > _OLD_ATTRIBUTES_AT else -1
        try:
            if magic == _FIRST_WITH_HEADERS and len(content) >= _HEADER.size:
                return DefaultRecordBatch(content)
            if 0 <= magic < _FIRST_WITH_HEADERS:
                return LegacyRecordBatch(content, magic)
        except Exception as error:
            raise self._stop(f"the header of its batch is broken: {error!r}") from error
        raise self._stop(f"its batch has {len(content)} bytes and the unknown format {magic}")

    def _decoded(self, content: memoryview, batch: Any, sound: bool) -> list[Any]:
        if not sound:
            raise ValueError("its checksum is wrong, also when it is fetched again")
        codec = _codec(content)
        if isinstance(batch, LegacyRecordBatch):
            if codec:
                decompress(codec, b"")
            return list(batch)
        if codec:
            content = memoryview(_plain(content, decompress(codec, bytes(content[_HEADER.size :]))))
            batch = DefaultRecordBatch(content)
        try:
            return list(batch)
        except UnicodeDecodeError:
            return list(_LenientBatch(content))

    def _unreadable(self, content: memoryview, batch: Any, sound: bool, error: Exception) -> StandIn:
        """Stand in for a batch, if its header says for certain which offsets it takes."""
        last = batch.next_offset - 1
        if not isinstance(batch, LegacyRecordBatch):
            header = _HEADER.unpack_from(content)
            sound = sound or header[_COUNT] == header[_LAST_DELTA] + 1
        if not sound or last < self.next_fetch_offset:
            raise self._stop(f"{_text(error)}, and its header does not say where it ends") from error
        codec = CODECS.get(_codec(content))
        compressed = f" (compressed by {codec.name})" if codec else ""
        reason = f"the batch{compressed} of offsets {self.next_fetch_offset} to {last} is broken: {_text(error)}"
        return StandIn(self.next_fetch_offset, last, reason, bytes(content))

    def _where(self) -> str:
        return f"the batch at {self._tp.topic}/{self._tp.partition}/{self.next_fetch_offset}"

    def _stop(self, why: str) -> BrokerError:
        return BrokerError(
            f"{self._where()} cannot be read: {why}. Look at the brokers' disks; if no replica has it whole, delete the"
            " records up to its end with kafka-delete-records, and what was deleted is noted as a gap"
        )


class _LenientBatch(_DefaultRecordBatchPy):  # type: ignore[misc] # as above
    """A batch in which the name of a header cannot be decoded."""

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


def _codec(content: memoryview) -> int:
    at = _ATTRIBUTES_AT if content[_MAGIC_AT] >= _FIRST_WITH_HEADERS else _OLD_ATTRIBUTES_AT
    return content[at] & _CODEC


def _plain(content: memoryview, records: bytes) -> bytes:
    """The same batch, not compressed. Its checksum was verified before and is not any more."""
    header = bytearray(content[: _HEADER.size])
    header[_ATTRIBUTES_AT] &= ~_CODEC & 0xFF
    return bytes(header) + records


def _text(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return type(error).__name__  # the text quotes the content, which may be anybody's data
    return str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
