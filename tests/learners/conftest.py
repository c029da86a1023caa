"""A snapshot that is quick to learn from."""

import pytest

from learners.snapshots import Snapshot, write_snapshot
from streams.trust.holdout import HoldoutSettings
from tests.builders.trained import trajectory


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    nothing_held_out = HoldoutSettings(selection=0.0, confirmation=0.0)
    return write_snapshot([trajectory(n) for n in range(3)], nothing_held_out, tmp_path_factory.mktemp("home"), 7, {})
