"""Finds out how much of the store was learned from already: what an adapter was trained on, whatever became of it.

A snapshot alone says nothing: its training may have been stopped. The learn role asks before each cycle.
"""

from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import ValidationError

from daemon.registry.lifecycle import State
from daemon.registry.refs import states_of
from daemon.registry.registry import Registry
from learners.adapters import MANIFEST, AdapterManifest, AdapterStore
from learners.snapshots import SnapshotManifest
from streams.errors import TrainingError

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Extent:
    """The latest sequence that was taken in, and that of the latest retraction that was obeyed."""

    as_of: int = -1
    retracted_as_of: int = 0

    def with_snapshot(self, manifest: SnapshotManifest) -> "Extent":
        """The extent of both."""
        return Extent(max(self.as_of, manifest.as_of), max(self.retracted_as_of, manifest.retracted_as_of))

    def has(self, manifest: SnapshotManifest) -> bool:
        """Return whether it reaches as far as the snapshot."""
        return manifest.as_of <= self.as_of and manifest.retracted_as_of <= self.retracted_as_of


class LearnedFrom:
    """The snapshots that the adapters of one store were trained on. Reads each adapter once, for it never changes."""

    def __init__(self, adapters: AdapterStore) -> None:
        self._adapters = adapters
        self._read: dict[str, AdapterManifest | None] = {}

    def extent(self) -> Extent:
        """The extent of them together.

        A damaged adapter is named in a warning. It counts as far as its manifest can be read: what it learned has been
        judged, and would be judged again.
        """
        extent = Extent()
        for digest in self._adapters.digests():
            if digest not in self._read:
                self._read[digest] = self._manifest(digest)
            manifest = self._read[digest]
            if manifest is not None:
                extent = extent.with_snapshot(manifest.snapshot)
        return extent

    def _manifest(self, digest: str) -> AdapterManifest | None:
        try:
            return self._adapters.manifest(digest)
        except (TrainingError, ValidationError, OSError) as error:
            damage = error
        try:
            manifest = AdapterManifest.model_validate_json((self._adapters.folder(digest) / MANIFEST).read_bytes())
        except (ValidationError, OSError):
            log.warning(
                "it cannot be told what an adapter was trained on, so its episodes count as new",
                adapter=digest,
                reason=str(damage),
                remedy="restore its folder from a backup, or let another cycle learn from them",
            )
            return None
        log.warning("a damaged adapter counts as far as its manifest tells", adapter=digest, reason=str(damage))
        return manifest


def broken_off(snapshots: Path, learned: Extent) -> SnapshotManifest | None:
    """The newest snapshot from which no adapter came, None where there is none.

    One that cannot be read is named in a warning.
    """
    found = []
    for path in snapshots.glob("*/manifest.json"):
        try:
            manifest = SnapshotManifest.model_validate_json(path.read_bytes())
        except (ValidationError, OSError) as error:
            log.warning("a snapshot cannot be read", snapshot=path.parent.name, reason=str(error))
            continue
        if not learned.has(manifest):
            found.append(manifest)
    return max(found, key=lambda each: (each.as_of, each.retracted_as_of), default=None)


def enter_unrecorded(registry: Registry, adapters: AdapterStore, snapshots: Path, actor: str) -> str | None:
    """Record the adapter that a learner trained when it died before it could; its digest, None where there is none.

    It is one without any state, of a snapshot of this home, that is newer than every adapter that was recorded.
    """
    entries = registry.audit.read()
    states = states_of(entries)
    latest = max((entry.at for entry in entries if entry.state is State.TRAINED), default=None)
    found = []
    for digest in adapters.digests():
        if digest in states:
            continue
        try:
            manifest = adapters.manifest(digest)
        except (TrainingError, ValidationError, OSError):
            continue  # it is damaged, so nothing can be made of it
        is_own = (snapshots / manifest.snapshot.snapshot_id).is_dir() and not manifest.note
        if is_own and (latest is None or manifest.trained_at > latest):
            found.append((manifest.trained_at, digest, manifest.snapshot.snapshot_id))
    if not found:
        return None
    _, digest, snapshot = max(found)
    registry.enter(digest, State.TRAINED, actor, f"trained on snapshot {snapshot}, and not recorded at once")
    log.info("an adapter that a learner trained before it died is judged now", adapter=digest, snapshot=snapshot)
    return digest
