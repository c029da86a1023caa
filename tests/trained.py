"""Adapters as the learner enters them, with a true manifest; the weights are a word, since nothing here computes."""

from pathlib import Path

from learners.adapters import AdapterManifest, AdapterStore
from learners.settings import LearnerSettings
from learners.snapshots import Snapshot


def entered(home: Path, snapshot: Snapshot, parent: str | None = None, weights: str = "weights") -> str:
    """The digest of an adapter that was trained on `snapshot`, which lies in `home`/snapshots, from `parent`."""
    trained = home / "training"
    trained.mkdir(parents=True, exist_ok=True)
    for name in ("adapter_config.json", "adapter_model.safetensors", "probes.json"):
        (trained / name).write_text(weights)
    manifest = AdapterManifest(
        parent=parent,
        base="smollm2-135m-instruct",
        base_digest="b" * 64,
        snapshot=snapshot.manifest,
        settings=LearnerSettings(),
        seed=0,
    )
    return AdapterStore(home / "adapters").add(trained, manifest)
