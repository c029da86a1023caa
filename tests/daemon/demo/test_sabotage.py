"""A damaged copy is an adapter of its own that says what was done to it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from daemon.demo.sabotage import damaged_copy
from daemon.registry.registry import Registry
from learners.adapters import AdapterManifest, AdapterStore
from learners.settings import LearnerSettings
from learners.snapshots import SnapshotManifest

SNAPSHOT = SnapshotManifest(
    snapshot_id="s", as_of=1, offsets={}, episodes={"expert": 1}, steps=1, branches=0, holdout="h", files={}
)
MANIFEST = AdapterManifest(
    parent=None, base="tiny", base_digest="b", snapshot=SNAPSHOT, settings=LearnerSettings(), seed=0
)


@pytest.fixture
def adapters(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "adapters")


@pytest.fixture
def sound(adapters: AdapterStore, registry: Registry, make_adapter: Callable[..., str]) -> str:
    return adapters.add(registry.home / "adapters" / make_adapter(1), MANIFEST)


def weights(adapters: AdapterStore, digest: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(adapters.folder(digest) / "adapter_model.safetensors")
    return found


def test_the_copy_has_other_weights_and_the_original_is_unchanged(adapters: AdapterStore, sound: str) -> None:
    before = weights(adapters, sound)
    damaged = damaged_copy(adapters, sound, seed=1)
    assert damaged != sound
    assert adapters.manifest(sound) == MANIFEST
    after = weights(adapters, damaged)
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        noise = after[name] - tensor
        assert noise.std() == pytest.approx(3 * tensor.std().item(), rel=0.5)


def test_the_copy_records_the_damage_and_the_same_seed_does_the_same_damage(adapters: AdapterStore, sound: str) -> None:
    damaged = damaged_copy(adapters, sound, seed=1)
    manifest = adapters.manifest(damaged)
    assert manifest.parent == sound
    assert "noise of 3 standard deviations" in manifest.note
    assert damaged_copy(adapters, sound, seed=1) == damaged
    assert damaged_copy(adapters, sound, seed=2) != damaged
