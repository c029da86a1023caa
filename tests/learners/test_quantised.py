"""Training against a base in 4 bit writes an adapter of the base as it is."""

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from learners.adapted_model import adapted_model
from learners.settings import LoraSettings, Stage, TrainingJob
from learners.snapshots import Snapshot
from learners.trainer import train
from ratchet_client.errors import ConfigurationError
from tests.builders.trained import settings

MISSING = importlib.util.find_spec("bitsandbytes") is None


@pytest.mark.skipif(MISSING, reason="needs the extra `qlora`")
def test_an_adapter_trained_against_a_quantised_base_is_one_of_the_whole_base(
    tiny_base: Path, snapshot: Snapshot, tmp_path: Path
) -> None:
    plain = settings(Stage(objective="imitation", updates=2), lora=LoraSettings(rank=2, alpha=4))
    found = {}
    for name, chosen in (("plain", plain), ("nf4", plain.model_copy(update={"quantisation": "nf4"}))):
        job = TrainingJob(base=tiny_base, snapshot=snapshot.folder, output=tmp_path / name, settings=chosen)
        train(job)
        found[name] = load_file(job.output / "adapter_model.safetensors")
    assert {name: one.shape for name, one in found["nf4"].items()} == {
        name: one.shape for name, one in found["plain"].items()
    }
    assert not all(torch.equal(found["nf4"][name], one) for name, one in found["plain"].items())


def test_a_missing_bitsandbytes_is_told_with_what_to_install(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"bitsandbytes is not installed: pip install 'ratchetd\[qlora\]'"):
        adapted_model(tiny_base, LoraSettings(), None, torch.float32, "nf4")
