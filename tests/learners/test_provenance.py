"""Whose data an adapter saw: its own, its ancestors', and in doubt everybody's."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from learners.adapters import AdapterStore
from learners.provenance import Exposure, Provenance
from learners.snapshots import Snapshot, write_snapshot
from streams.trust.holdout import HoldoutSettings
from tests.builders.trained import entered, trajectory

NOTHING_HELD_OUT = HoldoutSettings(selection=0.0, confirmation=0.0)


def snapshot_of(home: Path, *principals: str) -> Snapshot:
    """One trajectory of each principal."""
    trajectories = [replace(trajectory(number), principals=(principal,)) for number, principal in enumerate(principals)]
    return write_snapshot(trajectories, NOTHING_HELD_OUT, home / "snapshots", len(principals), {})


def provenance(home: Path) -> Provenance:
    return Provenance(AdapterStore(home / "adapters"), home / "snapshots")


def test_an_adapter_saw_the_principals_whose_trajectories_are_in_its_snapshot(tmp_path: Path) -> None:
    adapter = entered(tmp_path, snapshot_of(tmp_path, "ann", "bob", "ann"))
    other = entered(tmp_path, snapshot_of(tmp_path, "bob"))
    found = provenance(tmp_path)
    assert found.exposed("ann") == (Exposure(adapter, seen_by=adapter, trajectories=2),)
    assert {one.adapter for one in found.exposed("bob")} == {adapter, other}
    assert found.exposed("eve") == ()


def test_a_child_saw_every_principal_that_its_parent_saw(tmp_path: Path) -> None:
    grandparent = entered(tmp_path, snapshot_of(tmp_path, "ann"))
    parent = entered(tmp_path, snapshot_of(tmp_path, "bob"), grandparent)
    child = entered(tmp_path, snapshot_of(tmp_path, "bob", "cid"), parent)
    found = provenance(tmp_path)
    assert [one.adapter for one in found.lineage(child)] == [child, parent, grandparent]
    assert found.exposure(child, "ann") == Exposure(child, seen_by=grandparent, trajectories=1)
    assert found.exposure(child, "bob") == Exposure(child, seen_by=child, trajectories=1)
    assert found.exposure(parent, "cid") is None
    assert [one.inherited for one in found.exposed("cid")] == [False]


def test_an_identical_trajectory_of_several_principals_is_the_data_of_each(tmp_path: Path) -> None:
    shared = replace(trajectory(1), principals=("ann", "bob"))
    adapter = entered(tmp_path, write_snapshot([shared], NOTHING_HELD_OUT, tmp_path / "snapshots", 1, {}))
    assert provenance(tmp_path).lineage(adapter)[0].principals == Counter(ann=1, bob=1)


@pytest.mark.parametrize("lost", ["the snapshot", "the parent", "the parent's weights"])
def test_an_adapter_whose_snapshot_is_lost_counts_as_having_seen_every_principal(lost: str, tmp_path: Path) -> None:
    first = snapshot_of(tmp_path, "ann")
    parent = entered(tmp_path, first)
    child = entered(tmp_path, snapshot_of(tmp_path, "bob", "cid"), parent)
    if lost == "the snapshot":
        shutil.rmtree(first.folder)
    elif lost == "the parent":
        shutil.rmtree(tmp_path / "adapters" / parent)
    else:
        (tmp_path / "adapters" / parent / "adapter_model.safetensors").write_text("other weights")
    found = provenance(tmp_path)
    assert found.exposure(child, "eve") == Exposure(child, seen_by=parent, trajectories=None)
    assert found.exposure(child, "bob") == Exposure(child, seen_by=child, trajectories=1)
