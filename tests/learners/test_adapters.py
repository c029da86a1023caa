"""An adapter is named by what it holds, and what does not fit its name is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from learners.adapters import AdapterManifest, AdapterStore, adapter_digest, manifest_of
from learners.base_model import base_digest
from learners.settings import REFLECTIONS, TRAINING_REPORT, TrainingJob, TrainingReport
from learners.snapshots import Snapshot
from streams.errors import TrainingError
from tests.builders.trained import settings


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """What a training process leaves behind."""
    folder = tmp_path / "training"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / TRAINING_REPORT).write_text(TrainingReport(adapted={"q_proj": 2}).model_dump_json())
    (folder / "probes.json").write_text(json.dumps({"prompts": ["a b"], "logprobs": [[-1.0]]}))
    (folder / "job.json").write_text("not part of the adapter")
    save_file({"lora_A": torch.ones(2, 2)}, folder / "adapter_model.safetensors")
    return folder


@pytest.fixture
def manifest(tiny_base: Path, snapshot: Snapshot, output: Path) -> AdapterManifest:
    job = TrainingJob(base=tiny_base, snapshot=snapshot.folder, output=output, settings=settings(), seed=5)
    return manifest_of(job, snapshot.manifest, None)


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "adapters")


def test_a_manifest_is_read_as_it_was_written_and_names_where_the_adapter_came_from(
    store: AdapterStore, output: Path, manifest: AdapterManifest, tiny_base: Path, snapshot: Snapshot
) -> None:
    digest = store.add(output, manifest)
    assert store.manifest(digest) == manifest
    assert manifest.base_digest == base_digest(tiny_base)
    assert (manifest.snapshot, manifest.seed, manifest.parent) == (snapshot.manifest, 5, None)
    card = (store.folder(digest) / "README.md").read_text()
    assert snapshot.manifest.snapshot_id in card
    assert "8 updates of imitation" in card


def test_an_adapter_is_named_by_the_digest_of_its_content(
    store: AdapterStore, output: Path, manifest: AdapterManifest
) -> None:
    digest = store.add(output, manifest)
    assert store.folder(digest).name == digest == adapter_digest(store.folder(digest))
    assert store.add(output, manifest) == digest
    assert store.add(output, manifest.model_copy(update={"note": "another"})) != digest
    save_file({"lora_A": torch.zeros(2, 2)}, output / "adapter_model.safetensors")
    assert store.add(output, manifest) != digest
    assert not [path for path in store.folder(digest).parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "probes.json", "manifest.json"])
def test_a_folder_that_was_changed_is_refused(
    store: AdapterStore, output: Path, manifest: AdapterManifest, name: str
) -> None:
    digest = store.add(output, manifest)
    with (store.folder(digest) / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(TrainingError, match="is damaged"):
        store.manifest(digest)


def test_the_report_of_a_gate_may_be_added_to_the_folder_later(
    store: AdapterStore, output: Path, manifest: AdapterManifest
) -> None:
    digest = store.add(output, manifest)
    (store.folder(digest) / "gate.json").write_text("{}")
    assert store.manifest(digest) == manifest


def test_a_folder_that_is_not_an_adapter_is_an_error(
    store: AdapterStore, output: Path, manifest: AdapterManifest
) -> None:
    with pytest.raises(TrainingError, match="adapter 0000 not found"):
        store.manifest("0000")
    (output / "probes.json").unlink()
    with pytest.raises(TrainingError, match=r"it lacks probes\.json"):
        store.add(output, manifest)


def test_a_folder_that_lost_a_file_is_refused(store: AdapterStore, output: Path, manifest: AdapterManifest) -> None:
    digest = store.add(output, manifest)
    (store.folder(digest) / "probes.json").unlink()
    with pytest.raises(TrainingError, match="is damaged"):
        store.manifest(digest)


def test_rationales_are_signed_and_named_where_they_were_changed(
    store: AdapterStore, output: Path, manifest: AdapterManifest
) -> None:
    (output / REFLECTIONS).write_text("{}\n")
    digest = store.add(output, manifest)
    assert store.check(digest)
    (store.folder(digest) / REFLECTIONS).write_text("[]\n")
    with pytest.raises(TrainingError, match=f"does not vouch for {REFLECTIONS}"):
        store.check(digest)
