"""The formats of a home's files: the versions that they have, and what an upgrade makes of them. Nothing is written.

Files that are named by their content or chained by hashes are never rewritten: this version reads those of older ones.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from daemon.backups.creating import Source
from daemon.registry.registry import AUDIT_FILE, REFS_FILE, Registry
from daemon.registry.task_uses import TASK_USES_FILE, TaskUses
from evaluation.report import GATE_FILE, GateReport
from learners.adapters import AdapterManifest, adapter_digest
from learners.snapshots import SnapshotManifest
from ratchet_client.settings import FrozenModel
from streams import schema_versions
from streams.access.token_file import TokenFile
from streams.assembly.tables import file_of, version_of
from streams.errors import AuditError, GateError, RegistryError, TrainingError
from streams.store.inspection import format_of
from streams.trust.groups import homes_in

_OBJECT: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, object])


class Format(FrozenModel):
    """A format of the home: how many `files` have it, which versions these carry, and what an upgrade `changes`.

    `found` and `current`, the version that is written now, are empty for a format that carries none. `refused` says
    why this version cannot read a file, empty where it reads all.
    """

    name: str
    files: int
    found: tuple[int, ...] = ()
    current: int | None = None
    changes: tuple[str, ...] = ()
    refused: str = ""


def formats_of(source: Source) -> tuple[Format, ...]:
    """The formats of the files that the home has. Raises `StoreError` where a process has the store open."""
    homes = [*homes_in(source.home)]
    found = (
        _store(source.store.path),
        _assembly(source.assembly),
        _snapshots(homes),
        _read("adapters", _paths(homes, "adapters/*/manifest.json"), _adapter),
        _read("gate reports", _paths(homes, f"adapters/*/{GATE_FILE}"), lambda path: GateReport.read(path.parent)),
        _read("audit log", _paths(homes, AUDIT_FILE), _audit),
        _read("refs", _paths(homes, REFS_FILE), lambda path: Registry(path.parent).refs()),
        _read("uses of tasks", _paths(homes, TASK_USES_FILE), lambda path: TaskUses(path.parent).account()),
        _tokens(source.home),
    )
    return tuple(each for each in found if each.files)


def _store(path: Path) -> Format:
    name, current = "store", schema_versions.STORE
    found = format_of(path)
    if found is None:
        return Format(name=name, files=0)
    changes, refused = [], ""
    if found.version > current or found.unknown:
        has = f"schema {found.version}" if found.version > current else f"what is new: {', '.join(found.unknown)}"
        refused = f"the store {path} has {has}"
    elif found.version < current:
        changes.append(f"its tables become those of schema {current}")
    elif found.lacks:
        changes.append(f"it gets {', '.join(found.lacks)}")
    return Format(name=name, files=1, found=(found.version,), current=current, changes=tuple(changes), refused=refused)


def _assembly(path: Path) -> Format:
    name, current, file = "assembly", schema_versions.ASSEMBLY, file_of(path)
    version = version_of(path)
    if version is None:
        return Format(name=name, files=0)
    renamed = (f"{file.name} becomes {path.name}",) if file != path else ()
    changes = (*renamed, f"its tables become those of version {current}") if version < current else ()
    refused = f"the assembler's file {path} has version {version}" if version > current else ""
    return Format(name=name, files=1, found=(version,), current=current, changes=changes, refused=refused)


def _snapshots(homes: Iterable[Path]) -> Format:
    def read(path: Path) -> None:
        version = _version(path, "schema_version")
        found.add(version)
        if version > schema_versions.SNAPSHOTS:
            raise TrainingError(f"it has schema {version}")
        SnapshotManifest.model_validate_json(path.read_bytes())

    found = set[int]()
    read_all = _read("snapshots", _paths(homes, "snapshots/*/manifest.json"), read)
    return read_all.model_copy(update={"found": tuple(sorted(found)), "current": schema_versions.SNAPSHOTS})


def _tokens(home: Path) -> Format:
    path = TokenFile(home).path
    if not path.exists():
        return Format(name="tokens", files=0)
    version, current = _version(path, "version"), schema_versions.TOKENS
    refused = f"{path} has version {version}" if version > current else ""
    return Format(name="tokens", files=1, found=(version,), current=current, refused=refused)


def _read(name: str, paths: Iterator[Path], read: Callable[[Path], object]) -> Format:
    """A format that carries no version: what is no longer as it was written is for `ratchet verify` to name."""
    files, refused = 0, ""
    for path in paths:
        files += 1
        try:
            read(path)
        except (ValidationError, TrainingError, AuditError, GateError, RegistryError) as error:
            refused = refused or f"{path} cannot be read ({_first_line(error)})"
    return Format(name=name, files=files, refused=refused)


def _adapter(manifest: Path) -> None:
    """Raise `ValidationError` for a manifest that cannot be read though it is as the adapter's name says.

    One that is damaged is named by `ratchet verify`, and never loaded.
    """
    folder = manifest.parent
    try:
        AdapterManifest.model_validate_json(manifest.read_bytes())
    except ValidationError:
        with suppress(OSError):
            if adapter_digest(folder) == folder.name:
                raise


def _audit(path: Path) -> None:
    """Raise `AuditError` for a log whose chain is whole, with an entry that this version does not know."""
    log = Registry(path.parent).audit
    try:
        log.verify()
    except AuditError:
        return  # it is damaged
    log.read()


def _paths(homes: Iterable[Path], pattern: str) -> Iterator[Path]:
    return (path for home in homes for path in sorted(home.glob(pattern)))


def _version(path: Path, field: str) -> int:
    """The version that a JSON file carries; 1 where it carries none, or is not such a file."""
    try:
        version = _OBJECT.validate_json(path.read_bytes()).get(field, 1)
    except ValidationError:
        return 1
    return version if isinstance(version, int) else 1


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
