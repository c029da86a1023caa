"""The operator's key, which signs retractions and practice: the record role makes it, commands beside it read it."""

from pathlib import Path

from ratchet_client.errors import ConfigurationError
from streams.runtime.files import secret_key

OPERATOR_KEY_FILE = "operator.key"


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
