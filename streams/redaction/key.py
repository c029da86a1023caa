"""The key of placeholders. The record role redacts events with it, and the branch role what comes of them."""

from pathlib import Path

from streams.runtime.files import secret_key

KEY_FILE = "redaction.key"


def redaction_key(home: Path) -> bytes:
    """The key from its file in `home`; made there the first time."""
    return secret_key(home / KEY_FILE)
