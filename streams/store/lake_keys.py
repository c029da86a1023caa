"""The keys that the record roles of one lake have in common: one with others is told so before it stores anything."""

import hashlib
import hmac
import json
from collections.abc import Mapping

from ratchet_client.errors import ConfigurationError
from streams.runtime.files import secret_file
from streams.store.ducklake import folder_of
from streams.store.settings import LakeSettings

_NAME = "ratchet-lake-keys.json"
_PURPOSE = b"which key a record role of a lake has"


def agree_on_keys(settings: LakeSettings, keys: Mapping[str, bytes]) -> None:
    """Compare `keys`, by their names, with those of the first record role; the lake's folder has fingerprints of them.

    Raises `ConfigurationError` where they differ: placeholders of the same value would, too, and retractions that this
    role's operators sign would be refused by others.
    """
    folder = folder_of(settings)
    own = {name: hmac.digest(key, _PURPOSE, hashlib.sha256).hex() for name, key in keys.items()}
    agreed = json.loads(secret_file(folder / _NAME, lambda: json.dumps(own, indent=1).encode() + b"\n"))
    different = [name for name, fingerprint in own.items() if agreed.get(name) != fingerprint]
    if different:
        raise ConfigurationError(
            f"{' and '.join(different)} of this record role is not that of the others of the lake in {folder}: copy it "
            f"from the home of one of them. If all have a new one on purpose, remove {folder / _NAME}"
        )
