"""Taking a backup of a home while Ratchet runs, or while it does not. `ratchet backup create` calls it.

The store is read through the record role, as of one sequence and with the offsets of that sequence; without a record
role, from its file or lake. The audit log and the refs are copied under the log's lock, and all that they speak of
after them: what they name is on disk before they name it. `ratchet upgrade` has the databases' own files copied
instead, of whatever version they are.
"""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from daemon.backups.manifest import (
    HOME,
    MANIFEST,
    SETTINGS,
    STORE,
    STORE_FILE,
    BackedUpFile,
    BackupManifest,
    check_backup,
    copied,
)
from daemon.registry.maintenance import maintenance
from daemon.registry.registry import AUDIT_FILE, REFS_FILE, Registry
from daemon.registry.verifying import verify
from ratchet_client.crash_points import CrashPoint, reach
from streams.assembly.tables import file_of
from streams.errors import BackupError, StoreError
from streams.kafka.operator_key import OPERATOR_KEY_FILE
from streams.redaction.key import KEY_FILE
from streams.runtime.files import checksum_path, move_into_place
from streams.store.backends import open_database
from streams.store.client import StoreClient
from streams.store.copies import Read, StoreCopy, copy_store, reading_in, reading_through
from streams.store.settings import StoreSettings
from streams.trust.groups import homes_in

_LEFT_OUT = {
    "logs": "logs are not state",
    "base": "the base model is converted again",
    "training": "a training that has not ended begins again",
    "demo": "the demo has a home of its own",
    "demo.lock": "a lock",
}
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Source:
    """The home to back up. `settings` is the JSON of what was set, `store_url` where the record role answers.

    With `as_files` the databases' files are copied as they are, of whatever version; nothing may have them open.
    """

    home: Path
    store: StoreSettings
    assembly: Path
    store_url: str
    settings: str
    as_files: bool = False

    def database_files(self) -> Iterator[tuple[Path, str]]:
        """The databases' files that there are, and their names in a backup."""
        assembly = file_of(self.assembly)
        for path, name in ((self.store.path, STORE_FILE), (assembly, assembly.name)):
            for suffix in ("", ".wal", "-wal", "-shm"):
                file = path.with_name(f"{path.name}{suffix}")
                if file.is_file():
                    yield file, f"{HOME}/{name}{suffix}"


@dataclass(slots=True)
class _Files:
    """The files of the backup, as they come into its folder `root`."""

    root: Path
    files: dict[str, BackedUpFile] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def take(self, path: Path, name: str) -> None:
        """Copy a file; one that is gone by now is none of the home's any more."""
        reach(CrashPoint.BACKUP_STEP_BEFORE)
        try:
            with path.open("rb") as source:
                target = self.root / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as copy:
                    self.files[name] = copied(source, copy)
        except FileNotFoundError:
            return

    def note(self, path: Path) -> None:
        """Note a file that was written into the folder."""
        with path.open("rb") as file:
            self.files[str(path.relative_to(self.root))] = copied(file)


async def create_backup(source: Source, to: Path, say: Say) -> BackupManifest:
    """Write a backup into the new folder `to`. It has that name only when it is whole.

    Raises `BackupError` where `to` exists or is inside of the home, and what goes wrong with the store as `StoreError`.
    """
    to = _new(to, source.home)
    scratch = to.with_name(f".{to.name}.partial")
    with maintenance(source.home, wait=False):
        try:
            # What a backup left that was killed.
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True, mode=0o700)
            manifest = await _fill(source, scratch, say)
            (scratch / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
            reach(CrashPoint.BACKUP_STEP_BEFORE)
            move_into_place(scratch, to)
            if scratch.exists():
                raise BackupError(f"{to} came to be meanwhile: name a new folder")
        except OSError as error:
            raise BackupError(f"the backup {to} could not be written: {error}; nothing of it was kept") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return check_backup(to)


def _new(to: Path, home: Path) -> Path:
    if to.exists():
        raise BackupError(f"{to} exists already: name a new folder")
    if not home.is_dir():
        raise BackupError(f"the home {home} does not exist: name it by RATCHET_HOME or --config")
    if to.resolve().is_relative_to(home.resolve()):
        raise BackupError(f"{to} is inside of the home {home}, and would be lost with it: name a folder elsewhere")
    return to.absolute()


async def _fill(source: Source, scratch: Path, say: Say) -> BackupManifest:
    files, created_at = _Files(scratch), datetime.now(UTC)
    (scratch / HOME).mkdir()
    store = None
    if source.as_files:
        say("copying the databases")
        for path, name in source.database_files():
            files.take(path, name)
    else:
        # Before the store: a conversation that becomes events meanwhile is in both, and its events are known by ids.
        _assembly(source.assembly, files)
        store = await _store(source, scratch, files, say)
    say("copying the home")
    _home(source, files)
    (scratch / SETTINGS).write_text(source.settings)
    files.note(scratch / SETTINGS)
    say("checking what was copied")
    findings = tuple(finding.path for finding in verify(scratch / HOME).findings)
    return BackupManifest(
        created_at=created_at, store=store, files=files.files, left_out=files.left_out, findings=findings
    )


async def _store(source: Source, scratch: Path, files: _Files, say: Say) -> StoreCopy | None:
    folder = scratch / STORE
    folder.mkdir()

    async def copy(read: Read) -> StoreCopy:
        return await copy_store(read, folder, lambda table: say(f"copying the table {table}"))

    arriving = scratch / "arriving"
    async with StoreClient(source.store_url) as client:
        try:
            await client.status()
        except StoreError:
            if not source.store.is_lake and not source.store.path.exists():
                files.left_out["store"] = "there is none yet"
                return None
            say("the record role does not answer: reading the store itself")
            with closing(open_database(source.store)) as database:
                found = await copy(reading_in(database))
        else:
            found = await copy(reading_through(client, arriving))
    arriving.unlink(missing_ok=True)
    for path in sorted(folder.iterdir()):
        files.note(path)
    return found


def _home(source: Source, files: _Files) -> None:
    home = source.home
    for one in homes_in(home):
        registry, place = Registry(one), Path(HOME) / one.relative_to(home)
        if registry.audit.path.exists():
            with registry.audit.locked():
                for name in (REFS_FILE, AUDIT_FILE):
                    files.take(one / name, str(place / name))
    files.left_out |= {name: why for name, why in _LEFT_OUT.items() if (home / name).exists()}
    for path, name in _paths(source):
        if name not in files.files:
            files.take(path, name)


def still_holds(folder: Path, source: Source) -> bool:
    """Return whether `folder` is a whole backup that has the home's files as they are now, but for the databases."""
    try:
        told = check_backup(folder).files
    except BackupError:
        return False
    for path, name in _paths(source):
        with path.open("rb") as file:
            if told.get(name) != copied(file):
                return False
    return True


def _paths(source: Source) -> Iterator[tuple[Path, str]]:
    """The files of the home, and keys beside the store, with their names in a backup.

    Databases, temporary files and what is left out are not among them.
    """
    home, beside = source.home, source.store.path.parent
    for path in _in_home(source):
        yield path, f"{HOME}/{path.relative_to(home)}"
    for key in (beside / OPERATOR_KEY_FILE, beside / KEY_FILE):
        for path in (key, checksum_path(key)):
            if path.is_file() and not (home / path.name).exists():
                yield path, f"{HOME}/{path.name}"


def _in_home(source: Source) -> Iterator[Path]:
    home = source.home
    databases = (source.store.path.resolve(), source.assembly.resolve(), file_of(source.assembly).resolve())
    homes = {*homes_in(home)}
    for place, folders, names in os.walk(home):
        top = Path(place) in homes
        folders[:] = [name for name in folders if name[0] != "." and not (top and name in _LEFT_OUT)]
        for name in names:
            path = Path(place, name)
            of_database = any(path.name.startswith(each.name) and path.parent == each.parent for each in databases)
            if name[0] != "." and not of_database and not (top and name in _LEFT_OUT):
                yield path


def _assembly(path: Path, files: _Files) -> None:
    """Copy the assembler's database as of one moment; its role may write on meanwhile."""
    if not path.exists():
        return
    reach(CrashPoint.BACKUP_STEP_BEFORE)
    target = files.root / HOME / path.name
    try:
        with (
            closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=0.5)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
        files.note(target)
    except sqlite3.Error as error:
        for left in files.root.glob(f"{HOME}/{path.name}*"):
            left.unlink()
        files.left_out[path.name] = (
            f"{error}: calls that are not episodes yet are not in it; start the role of this version, and back up again"
        )
