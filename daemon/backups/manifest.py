"""The manifest of a backup, which names all that is in it, and the check against it."""

import hashlib
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

from pydantic import AwareDatetime, Field, ValidationError

from ratchet_client.settings import FrozenModel
from streams import schema_versions
from streams.errors import BackupError
from streams.store.copies import StoreCopy, check_copy

MANIFEST, SETTINGS, STORE, HOME = "manifest.json", "settings.json", "store", "home"
STORE_FILE = "store.duckdb"
"""The name of the store's file in a home that is made of a backup."""
_CHUNK = 2**20


class BackedUpFile(FrozenModel):
    """The size in bytes and the SHA-256 of a file."""

    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class BackupManifest(FrozenModel):
    """The content of a backup: every file but the manifest itself, by its path.

    `left_out` says what of the home is not in it, and why. `findings` are files of the home that `ratchet verify` would
    name, as they were when the backup was taken.
    """

    format: int = schema_versions.BACKUPS
    version: str = Field(default_factory=lambda: version("ratchetd"))
    events_schema: int = schema_versions.EVENTS
    created_at: AwareDatetime
    store: StoreCopy | None
    files: dict[str, BackedUpFile]
    left_out: dict[str, str] = Field(default_factory=dict)
    findings: tuple[str, ...] = ()


def copied(source: BinaryIO, target: BinaryIO | None = None) -> BackedUpFile:
    """Copy `source` to `target`, if there is one; the size and digest of what was read."""
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        size += len(chunk)
        if target is not None:
            target.write(chunk)
    return BackedUpFile(size=size, sha256=digest.hexdigest())


def check_backup(folder: Path) -> BackupManifest:
    """The manifest of a backup that is whole: every file is there as it was written, and no other.

    Raises `BackupError` with the first files that are not.
    """
    path = folder / MANIFEST
    try:
        manifest = BackupManifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise BackupError(
            f"{folder} is not a backup, or not a whole one: it has no {MANIFEST}; name another"
        ) from error
    except (ValidationError, OSError) as error:
        raise BackupError(
            f"{path} cannot be read: {error}; take another backup, or install the version of it"
        ) from error
    if manifest.format > schema_versions.BACKUPS:
        raise BackupError(
            f"{folder} is of format {manifest.format}, and this version knows formats up to {schema_versions.BACKUPS}: "
            "install a newer one"
        )
    problems = [*_differing(folder, manifest)]
    if problems:
        raise BackupError(f"the backup {folder} is damaged: {'; '.join(problems[:3])}; use another one")
    if manifest.store is not None:
        check_copy(folder / STORE, manifest.store)
    return manifest


def _differing(folder: Path, manifest: BackupManifest) -> Iterator[str]:
    found = {str(Path(place, name).relative_to(folder)) for place, _, names in os.walk(folder) for name in names}
    yield from (f"{name} is missing" for name in sorted(manifest.files.keys() - found))
    yield from (f"{name} does not belong to it" for name in sorted(found - manifest.files.keys() - {MANIFEST}))
    for name in sorted(found & manifest.files.keys()):
        with (folder / name).open("rb") as file:
            if copied(file) != manifest.files[name]:
                yield f"{name} was changed"
