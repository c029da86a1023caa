"""The adapter store: `adapters/<sha256>/`, immutable folders named by what they hold.

The digest covers the weights, the configuration, the probes and the manifest, so provenance cannot be changed behind an
adapter's back. The gate's report joins the folder later and is not part of the digest; neither are the rationales that
it learned, of which the manifest has the counts. A signature of all but the report (`learners/signing.py`) says that
this home made the adapter.
"""

import hashlib
import re
import shutil
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pydantic import AwareDatetime, Field

from learners.base_model import base_digest, file_sha256
from learners.settings import REFLECTIONS, TRAINING_REPORT, LearnerSettings, TrainingJob, TrainingReport
from learners.signing import check_signature, sign
from learners.snapshots import SnapshotManifest
from ratchet_client.settings import FrozenModel
from streams.errors import TrainingError
from streams.runtime.files import move_into_place, new_folder

MANIFEST = "manifest.json"
_WEIGHTS = "adapter_model.safetensors"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CONTENT = ("adapter_config.json", _WEIGHTS, "probes.json", MANIFEST)


class AdapterManifest(FrozenModel):
    """Origin of an adapter. `parent` is the digest of the adapter it was trained on from, None for the base.

    `training` says which layers were adapted; it is empty in adapters of the first versions.
    """

    parent: str | None
    base: str
    base_digest: str
    snapshot: SnapshotManifest
    settings: LearnerSettings
    seed: int
    training: TrainingReport = TrainingReport()
    code_version: str = Field(default_factory=lambda: version("ratchetd"))
    trained_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    note: str = ""


class AdapterStore:
    """The adapters below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def folder(self, digest: str) -> Path:
        return self._folder / digest

    def digests(self) -> tuple[str, ...]:
        """Every adapter there is, in the order of their digests."""
        return tuple(sorted(path.name for path in self._folder.glob("*") if _DIGEST.fullmatch(path.name)))

    def add(self, trained: Path, manifest: AdapterManifest) -> str:
        """Take over a trained adapter and return its digest. Raises `TrainingError` when a file is missing."""
        missing = [name for name in _CONTENT[:-1] if not (trained / name).is_file()]
        if missing:
            raise TrainingError(f"{trained} is not a trained adapter: it lacks {', '.join(missing)}")
        with new_folder(self._folder) as scratch:
            folder = scratch / "adapter"
            folder.mkdir()
            rationales = (REFLECTIONS,) if (trained / REFLECTIONS).is_file() else ()
            for name in (*_CONTENT[:-1], *rationales):
                shutil.copy2(trained / name, folder / name)
            (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2))
            (folder / "README.md").write_text(_card(manifest))
            digest = adapter_digest(folder)
            folder = folder.rename(scratch / digest)  # its name is in the signature
            sign(folder, self._folder.parent)
            move_into_place(folder, self.folder(digest))
            return digest

    def check(self, digest: str) -> bool:
        """Return whether the adapter is signed by this home's key. What is to be loaded must pass this check.

        Raises `TrainingError` when its files are not those of its digest, or not those that were signed.
        """
        self.manifest(digest)
        return check_signature(self.folder(digest), self._folder.parent)

    def manifest(self, digest: str) -> AdapterManifest:
        """Raises `TrainingError` when the adapter is not found or its files are not those of its digest."""
        folder = self.folder(digest)
        if not folder.is_dir():
            raise TrainingError(f"adapter {digest} not found in {self._folder}")
        whole = all((folder / name).is_file() for name in _CONTENT)
        if not whole or adapter_digest(folder) != digest:
            raise TrainingError(
                f"{folder} is damaged: its files are not those that its name stands for; restore it from a backup"
            )
        return AdapterManifest.model_validate_json((folder / MANIFEST).read_bytes())


def adapter_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of the files that make an adapter."""
    digest = hashlib.sha256()
    for name in sorted(_CONTENT):
        digest.update(f"{name}:{file_sha256(folder / name)}\n".encode())
    return digest.hexdigest()


def manifest_of(job: TrainingJob, snapshot: SnapshotManifest, parent: str | None, note: str = "") -> AdapterManifest:
    """The manifest of the adapter that `job` has trained on `snapshot`."""
    return AdapterManifest(
        parent=parent,
        base=job.base.name,
        base_digest=base_digest(job.base),
        snapshot=snapshot,
        settings=job.settings,
        seed=job.seed,
        training=TrainingReport.model_validate_json((job.output / TRAINING_REPORT).read_bytes()),
        note=note,
    )


def _card(manifest: AdapterManifest) -> str:
    episodes = ", ".join(f"{count} {kind}" for kind, count in sorted(manifest.snapshot.episodes.items()))
    stages = ", then ".join(map(str, manifest.settings.stages))
    return "\n".join(
        [
            f"# LoRA adapter for {manifest.base}",
            "",
            f"Trained by Ratchet {manifest.code_version} on {manifest.trained_at:%Y-%m-%d %H:%M} UTC: {stages}.",
            "",
            f"- trained on from: {manifest.parent or 'the base model'}",
            f"- snapshot: {manifest.snapshot.snapshot_id}",
            f"- adapted layers: {', '.join(f'{count} {name}' for name, count in manifest.training.adapted.items())}",
            f"- trusted episodes: {episodes}; {manifest.snapshot.branches} branches",
            *([f"- note: {manifest.note}"] if manifest.note else []),
            "",
        ]
    )
