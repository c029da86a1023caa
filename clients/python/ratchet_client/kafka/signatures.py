"""Signatures of events: producers sign with their principal's key, operators with theirs; the record role verifies."""

import hashlib
import hmac

SIGNATURE_HEADER = "ratchet-signature"


def sign(key: bytes, value: bytes) -> str:
    """HMAC-SHA256 (RFC 2104) of a record's value, as hex."""
    return hmac.new(key, value, hashlib.sha256).hexdigest()


def verify(key: bytes, value: bytes, signature: str) -> bool:
    """Return whether `signature` is that of `value` under `key`; takes the same time wherever they differ."""
    return hmac.compare_digest(sign(key, value).encode(), signature.encode())
