"""Signatures of events: producers sign with their principal's key, operators with theirs; the record role verifies."""

import hashlib
import hmac
from pathlib import Path

from streams.errors import ConfigurationError
from streams.runtime.files import secret_key

SIGNATURE_HEADER = "ratchet-signature"
OPERATOR_KEY_FILE = "operator.key"


def sign(key: bytes, value: bytes) -> str:
    """HMAC-SHA256 (RFC 2104) of a record's value, as hex."""
    return hmac.new(key, value, hashlib.sha256).hexdigest()


def verify(key: bytes, value: bytes, signature: str) -> bool:
    """Return whether `signature` is that of `value` under `key`; takes the same time wherever they differ."""
    return hmac.compare_digest(sign(key, value).encode(), signature.encode())


def make_operator_key(folder: Path) -> bytes:
    """The operator's key from its file in `folder`, which only its owner may read; made there the first time."""
    return secret_key(folder / OPERATOR_KEY_FILE)


def read_operator_key(folder: Path) -> bytes:
    """The operator's key that the record role made in `folder`. Raises `ConfigurationError` when it cannot be read."""
    path = folder / OPERATOR_KEY_FILE
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"the operator's key {path} cannot be read: {error.strerror}; run this with the home of the record role, "
            "which makes the key when it starts, as the same user, or set admission.operator_key at both"
        ) from error
