"""Making a home of a backup. `ratchet backup restore` calls it."""

import shutil
from collections.abc import Callable
from pathlib import Path

from daemon.backups.manifest import HOME, STORE, STORE_FILE, BackupManifest, check_backup, copied
from daemon.registry.verifying import verify
from ratchet_client.crash_points import CrashPoint, reach
from ratchet_client.settings import FrozenModel
from streams.errors import BackupError
from streams.runtime.files import move_into_place
from streams.store.copies import make_store
from streams.store.database import Database
from streams.store.lake_filling import fill_lake
from streams.store.settings import LakeSettings, StoreSettings

Say = Callable[[str], None]


class Restored(FrozenModel):
    """The restored home. `findings` are files that `ratchet verify` names and did not name when it was backed up."""

    home: Path
    backup: BackupManifest
    findings: tuple[str, ...]


def restore_backup(folder: Path, home: Path, say: Say, lake: LakeSettings | None = None) -> Restored:
    """Make the new folder `home` of a whole backup. It has that name only when all is in it.

    With `lake` the store's rows go there, and `home` has no file of it. Raises `BackupError` where `home` has something
    in it, or the backup is not whole, and `StoreError`, also where the lake has rows already.
    """
    home = home.absolute()
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise BackupError(f"{home} is not empty: name a new folder; nothing is restored over what is there")
    memory = StoreSettings().memory
    say("checking the backup")
    manifest = check_backup(folder)
    scratch = home.with_name(f".{home.name}.partial")
    try:
        # What a restoration left that was killed.
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True, mode=0o700)
        say("copying the home")
        for name, told in manifest.files.items():
            if name.startswith(f"{HOME}/"):
                _copy(folder / name, scratch / name.removeprefix(f"{HOME}/"), told.sha256)
        if manifest.store is not None:
            say("making the store")
            make_store(folder / STORE, manifest.store, scratch / STORE_FILE)
        if lake is not None:
            say(f"filling the lake in {lake.data}")
            _fill(lake, scratch / STORE_FILE, memory)
        elif manifest.store is not None:
            Database.open(scratch / STORE_FILE, memory).close()
        findings = {finding.path for finding in verify(scratch).findings} - set(manifest.findings)
        reach(CrashPoint.BACKUP_STEP_BEFORE)
        move_into_place(scratch, home)
        if scratch.exists():
            raise BackupError(f"{home} came to hold something meanwhile: name a new folder")
    except OSError as error:
        raise BackupError(f"the home {home} could not be written: {error}; nothing of it was kept") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Restored(home=home, backup=manifest, findings=tuple(sorted(findings)))


def _fill(lake: LakeSettings, file: Path, memory: str) -> None:
    """Move the store from its file to the lake."""
    if not file.exists():
        raise BackupError("the backup has no store: restore it without --into-lake")
    Database.open(file, memory).close()  # brings it to the newest schema
    fill_lake(file, lake, memory)
    for each in file.parent.glob(f"{file.name}*"):
        each.unlink()


def _copy(source: Path, target: Path, sha256: str) -> None:
    reach(CrashPoint.BACKUP_STEP_BEFORE)
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as file, target.open("wb") as copy:
        if copied(file, copy).sha256 != sha256:
            raise BackupError(f"{source} changed while it was read: use another backup")
