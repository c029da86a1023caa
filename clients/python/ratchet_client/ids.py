"""The one id scheme: UUIDv7 for what happens, SHA-256 for what something is."""

import hashlib
import os
import time
from uuid import UUID


def uuid7() -> str:
    """A fresh UUID version 7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10))
    value = (milliseconds & (1 << 48) - 1) << 80 | random
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(UUID(int=value))


def content_id(*parts: str) -> str:
    """The SHA-256 of the parts in hex: the same content has the same id, in every process and after every restart."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8) + encoded)
    return digest.hexdigest()
