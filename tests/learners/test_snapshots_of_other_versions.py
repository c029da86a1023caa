"""Snapshots of earlier versions are read, and those of a newer one refused."""

import json
from pathlib import Path

import pytest

from learners.snapshots import read_snapshot, read_trajectories, write_snapshot
from streams.errors import TrainingError
from streams.trust.holdout import HoldoutSettings
from tests.builders.old_homes import home_of
from tests.builders.trained import trajectory


@pytest.mark.parametrize(("day", "schema"), [("2026-11-21", 1), ("2026-11-28", 3), ("2026-11-29", 4)])
def test_what_an_earlier_version_learned_from_can_be_read(day: str, schema: int, tmp_path: Path) -> None:
    (folder,) = (home_of(day, tmp_path) / "snapshots").iterdir()
    assert read_snapshot(folder).manifest.schema_version == schema
    first = read_trajectories(folder)[0]
    assert first.branches[0].action.content in ("jump", "sing")
    assert first.branches[0].observation[0].role == "user"
    assert first.principals == (("tenant/e0",) if schema == 1 else ("e0",))


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"schema_version": 5}, "has schema 5, and this version"), ({"mood": "good"}, "or a newer version wrote it")],
)
def test_a_snapshot_of_a_newer_version_is_refused(changes: dict[str, object], told: str, tmp_path: Path) -> None:
    snapshot = write_snapshot([trajectory(0)], HoldoutSettings(selection=0, confirmation=0), tmp_path, 7, {})
    manifest = snapshot.folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | changes))
    with pytest.raises(TrainingError, match=told):
        read_trajectories(snapshot.folder)
