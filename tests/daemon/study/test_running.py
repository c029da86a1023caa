"""A study of the smallest size, with the real model, game and training: cell by cell, over two sittings."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.nightly

REPOSITORY = Path(__file__).parents[3]

PLAN = """
baseline = "imitation"
seeds = [0]
demonstrations = [2]
alternatives = [1]
wrong = [0.5]
budgets = ["updates", "tokens"]
held_out_tasks = 2
validation_tasks = 2
[domains.game.domain]
environment = "textworld_express"
suite = "twc"
[[arms.imitation.variants]]
stages = [{ objective = "imitation", updates = 2, trajectories = 1 }]
[[arms.both.variants]]
stages = [{ objective = "world_model", updates = 1 }, { objective = "imitation", updates = 1 }]
[[arms.both.variants]]
stages = [{ objective = "imitation", updates = 1 }]
learning_rate = 1e-4
[[arms.practised.variants]]
phases = [
  { train = [{ objective = "imitation", updates = 2, trajectories = 1 }], measure = true },
  { practise = { tasks = 1, samples = 2 } },
  { train = [{ objective = "imitation", updates = 1 }] },
]
"""


def test_a_study_goes_on_where_it_was_left(
    embedded_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_HOME", str(embedded_home))
    (tmp_path / "plan.toml").write_text(PLAN)

    def study(*options: str) -> dict[str, object]:
        command = ["study", str(tmp_path / "plan.toml"), "--folder", str(tmp_path / "study"), "--json", *options]
        ratchet = [str(Path(sys.executable).with_name("ratchet")), *command]
        done = subprocess.run(ratchet, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        told: dict[str, object] = json.loads(done.stdout)
        return told

    first = study("--cells", "2")
    assert (first["cells"], first["done"]) == (5, 2)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "study" / "cells").iterdir()}
    whole = study("--report", str(tmp_path / "study.md"))
    assert whole["done"] == 5
    assert all(path.stat().st_mtime_ns == changed for path, changed in kept.items())
    manifests = [path.read_text() for path in (tmp_path / "study" / "data").glob("*/*/manifest.json")]
    assert sum("practice" not in manifest for manifest in manifests) == 1
    assert len(manifests) > 1
    (tmp_path / "study" / "cells").rename(tmp_path / "results")
    again = study("--results", str(tmp_path / "results"), "--folder", str(tmp_path / "none"), "--cells", "0")
    assert again == whole
    assert not (tmp_path / "none").exists()
    assert "| practised | tokens | 1 | 2 |" in (tmp_path / "study.md").read_text()
    assert "| both | tokens | 1 | 2 |" in (tmp_path / "study.md").read_text()
