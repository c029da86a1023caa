"""Snapshots say how practice went; those of before are read as what they were."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from learners.base_model import file_sha256
from learners.snapshots import read_episodes, read_principals, read_trajectories, write_snapshot
from learners.trajectories import Rationale
from streams.trust.holdout import Split
from tests.builders.episodes import HOLDOUT, TASKS
from tests.builders.trained import trajectory

TASK = TASKS[Split.TRAIN][0]


def test_outcomes_log_probabilities_and_rationales_come_back_as_they_were(tmp_path: Path) -> None:
    shown = trajectory(0, TASK)
    sampled = tuple((-0.1 * number, -(2.0**-40)) if number else () for number in range(len(shown.steps)))
    told = (Rationale(0, "The lamp is here.", "outcomes"),)
    lost = replace(
        shown,
        episode_id="lost",
        origin="practice",
        success=False,
        score=0.25,
        log_probabilities=sampled,
        rationales=told,
        principals=(),
    )
    snapshot = write_snapshot([shown, lost], HOLDOUT, tmp_path, 7, {})
    assert snapshot.manifest.schema_version == 4
    assert read_trajectories(snapshot.folder) == [shown, lost]


def test_a_snapshot_of_schema_2_has_productions_successes_alone(tmp_path: Path) -> None:
    shown = trajectory(0, TASK)
    folder = write_snapshot([shown], HOLDOUT, tmp_path, 7, {}).folder
    file, manifest = folder / "episodes.parquet", json.loads((folder / "manifest.json").read_text())
    table = pq.read_table(file)
    new = ["origin", "success", "score", "log_probabilities", "rationales", "older"]
    pq.write_table(table.drop_columns(new), file)
    manifest["schema_version"] = 2
    manifest["files"]["episodes.parquet"] = file_sha256(file)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert read_trajectories(folder) == [shown]
    assert read_episodes(folder) == {shown.episode_id}
    assert set(read_principals(folder)) == set(shown.principals)
