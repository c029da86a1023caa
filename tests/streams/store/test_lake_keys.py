"""Record roles of one lake have the same keys, or are told which are not."""

from pathlib import Path

import pytest

from ratchet_client.errors import ConfigurationError
from streams.store.lake_keys import agree_on_keys
from streams.store.settings import LakeSettings

KEYS = {"redaction.key": b"a" * 32, "operator.key": b"b" * 32}


def test_the_same_keys_are_accepted_and_another_one_is_named(tmp_path: Path) -> None:
    lake = LakeSettings(catalog="dbname=ratchet", data=tmp_path)
    for _ in range(2):
        agree_on_keys(lake, KEYS)
    with pytest.raises(ConfigurationError, match=r"^operator\.key of this record role is not that of the others"):
        agree_on_keys(lake, KEYS | {"operator.key": b"c" * 32})
    agree_on_keys(lake, KEYS)
    # The folder is shared: it has no key.
    (kept,) = tmp_path.iterdir()
    assert not [key for key in KEYS.values() if key in kept.read_bytes() or key.hex().encode() in kept.read_bytes()]
