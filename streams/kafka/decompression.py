"""The codecs that producers may compress batches with, read with a bound on what comes out of them.

A few kilobytes can stand for gigabytes, which must not take the process down. `streams.kafka.batches` calls it.
"""

import io
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiokafka.codec import snappy_decode

from ratchet_client.errors import ConfigurationError

# By Kafka's default a batch is a megabyte, compressed; text becomes a tenth of its size, seldom less.
MAX_BATCH_BYTES = 256 * 2**20
_GZIP_WINDOW = 31


@dataclass(frozen=True, slots=True)
class Codec:
    """`packages` are those on PyPI that read it, here and in kafka-python; Python itself reads gzip."""

    name: str
    packages: tuple[str, ...]
    read: Callable[[bytes, int], bytes]


def decompress(number: int, payload: bytes, most: int | None = None) -> bytes:
    """Decompress with the codec that has this number in batches; `most` is `MAX_BATCH_BYTES` by default.

    Raises:
        ConfigurationError: the codec is not installed.
        ValueError: it is unknown, or more than `most` bytes come out; broken data raise what each codec raises.
    """
    most = MAX_BATCH_BYTES if most is None else most
    codec = CODECS.get(number)
    if codec is None:
        raise ValueError(f"the codec {number} is unknown")
    try:
        plain = codec.read(payload, most + 1)
    except ImportError as error:
        raise ConfigurationError(
            f"the codec {codec.name} is not installed: run `pip install {' '.join(codec.packages)}`, and start again"
        ) from error
    if len(plain) > most:
        raise ValueError(f"more than {most} bytes come out when it is decompressed")
    return plain


def _gunzip(payload: bytes, most: int) -> bytes:
    plain = b""
    while payload and len(plain) < most:
        member = zlib.decompressobj(_GZIP_WINDOW)
        plain += member.decompress(payload, most - len(plain))
        payload = _rest(member.eof, member.unused_data, len(plain) >= most)
    return plain


def _read_snappy(payload: bytes, _: int) -> bytes:
    import cramjam  # noqa: F401 - aiokafka reads with it

    # At most 21 times what was compressed comes out.
    return bytes(snappy_decode(payload))


def _read_lz4(payload: bytes, most: int) -> bytes:
    import lz4.frame

    plain = b""
    while payload and len(plain) < most:
        frame = lz4.frame.LZ4FrameDecompressor()
        plain += frame.decompress(payload, max_length=most - len(plain))
        payload = _rest(frame.eof, frame.unused_data or b"", len(plain) >= most)
    return plain


def _read_zstd(payload: bytes, most: int) -> bytes:
    import zstandard

    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(payload), read_across_frames=True) as reader:
        return bytes(reader.read(most))


def _rest(ended: bool, rest: bytes, full: bool) -> bytes:
    if not (ended or full):
        raise ValueError("the compressed data are cut off")
    return rest


CODECS: Mapping[int, Codec] = {
    1: Codec("gzip", (), _gunzip),
    2: Codec("snappy", ("cramjam", "python-snappy"), _read_snappy),
    3: Codec("lz4", ("lz4", "cramjam"), _read_lz4),
    4: Codec("zstd", ("zstandard", "cramjam"), _read_zstd),
}
