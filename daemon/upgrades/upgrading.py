"""Bringing a home to the formats of this version, with a backup before. `ratchet upgrade` calls it.

What is done is written down in a file of the home before it begins, and each step may be killed and done again.
`ratchet run` refuses a home with that file: what would be stored meanwhile would not be in the backup.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from daemon.backups.creating import Say, Source, create_backup, still_holds
from daemon.erasure.request import is_asked_for
from daemon.registry.maintenance import maintenance
from daemon.upgrades.formats import Format, formats_of
from daemon.upgrades.in_use import refuse_in_use
from ratchet_client.crash_points import CrashPoint, reach
from ratchet_client.errors import ConfigurationError
from ratchet_client.settings import FrozenModel
from ratchet_client.syncing import sync_folder
from streams.assembly.tables import open_tables, version_of
from streams.errors import UpgradeError
from streams.runtime.files import write_atomically
from streams.runtime.json_lines import locked
from streams.store.database import Database
from streams.store.inspection import format_of

# Hidden, so that no backup has them.
_BEGUN, _LOCK = ".upgrade.json", ".upgrade.lock"


class UpgradeReport(FrozenModel):
    """The formats of a home as they were before, and the backup of it then; None where nothing was to change.

    `done` says that the home has the formats of this version now.
    """

    home: Path
    formats: tuple[Format, ...]
    backup: Path | None = None
    done: bool


class Begun(FrozenModel):
    """An upgrade that has begun: the formats, and the newest sequence of the store, when its backup was begun."""

    backup: Path
    formats: tuple[Format, ...]
    newest: int


def begun_in(home: Path) -> Begun | None:
    """The upgrade of `home` that was begun and is not over. Raises `UpgradeError` where its file is damaged."""
    path = home / _BEGUN
    try:
        return Begun.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise UpgradeError(f"{path} is damaged: remove it, and run `ratchet upgrade` again ({error})") from error


def refuse_begun(home: Path) -> None:
    """Raise `UpgradeError` for a home whose upgrade was begun and is not over."""
    begun = begun_in(home)
    if begun is not None:
        raise UpgradeError(
            f"an upgrade of {home} was begun and is not over: run `ratchet upgrade` again, which ends it; the home as "
            f"it was before is in the backup {begun.backup}"
        )


def planned(source: Source) -> UpgradeReport:
    """The report of what an upgrade of the home would do; nothing is written.

    Raises `UpgradeError` for a home that has something which this version cannot read, and `StoreError`.
    """
    formats = _readable(source)
    begun = begun_in(source.home)
    if begun is not None:
        return UpgradeReport(home=source.home, formats=begun.formats, backup=begun.backup, done=False)
    return UpgradeReport(home=source.home, formats=formats, done=not _to_change(formats))


async def upgrade(source: Source, backup: Path | None, say: Say) -> UpgradeReport:
    """Bring the home to the formats of this version; where it has them already, nothing is written.

    The home as it was is first copied to the new folder `backup`, by default beside the home. After a kill the next
    call goes on. Raises `UpgradeError` where Ratchet runs, an erasure waits or something cannot be read, and then
    changes nothing; `BackupError`; and `StoreError` where a database cannot be brought to its new tables.
    """
    formats = _readable(source)
    if begun_in(source.home) is None and not _to_change(formats):
        return UpgradeReport(home=source.home, formats=formats, done=True)
    if is_asked_for(source.home):
        raise UpgradeError(
            f"an erasure of {source.home} waits, and a backup would keep what is to be erased: start the record role, "
            "which carries it out, then upgrade"
        )
    refuse_in_use(source)
    with _alone(source.home):
        return await _carried_out(source, formats, backup, say)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(home / _LOCK, wait=False))
        except BlockingIOError as error:
            raise UpgradeError(f"another upgrade of {home} is under way: wait for its end") from error
        yield


async def _carried_out(source: Source, formats: tuple[Format, ...], backup: Path | None, say: Say) -> UpgradeReport:
    begun = begun_in(source.home)
    backed_up = begun is not None and begun.backup.exists()
    if begun is None or (backed_up and _is_outdated(begun, formats, source)):
        backed_up = False
        begun = Begun(backup=(backup or _beside(source.home)).absolute(), formats=formats, newest=_newest(source))
        write_atomically(source.home / _BEGUN, begun.model_dump_json(indent=1).encode() + b"\n")
    if not backed_up:
        say(f"backing the home up to {begun.backup}")
        try:
            await create_backup(source, begun.backup, say)
        except BaseException:
            _end(source.home)  # nothing was changed
            raise
    refuse_in_use(source)
    with maintenance(source.home, wait=False):
        _change(source, say)
        reach(CrashPoint.UPGRADE_STEP_BEFORE)
        _end(source.home)
    return UpgradeReport(home=source.home, formats=begun.formats, backup=begun.backup, done=True)


def _change(source: Source, say: Say) -> None:
    """Bring the databases to the tables of this version; one that has them stays as it is."""
    if format_of(source.store.path) is not None:
        say("bringing the store to its new tables")
        reach(CrashPoint.UPGRADE_STEP_BEFORE)
        Database.open(source.store.path, source.store.memory, keep_copy=False).close()
    if version_of(source.assembly) is not None:
        say("bringing the assembler's file to its new tables")
        reach(CrashPoint.UPGRADE_STEP_BEFORE)
        try:
            open_tables(source.assembly).close()
        except sqlite3.Error as error:
            raise UpgradeError(
                f"{source.assembly} could not be brought to its new tables: {error}; run `ratchet upgrade` again, or "
                "restore the backup"
            ) from error
    left = _to_change(formats_of(source))
    if left:
        raise UpgradeError(
            f"the home {source.home} still has older formats: {', '.join(left)}; restore the backup, and report this"
        )


def _readable(source: Source) -> tuple[Format, ...]:
    if not source.home.is_dir():
        raise ConfigurationError(
            f"there is no home at {source.home}: is RATCHET_HOME, or `home` in the configuration, right?"
        )
    formats = formats_of(source)
    refused = [each.refused for each in formats if each.refused]
    if refused:
        raise UpgradeError(
            f"this version of Ratchet cannot read all of the home {source.home}: {'; '.join(refused)}. A newer version "
            "wrote that, or it is damaged, which `ratchet verify` tells; nothing was changed. Install the newer "
            "version, or restore a backup from before"
        )
    return formats


def _end(home: Path) -> None:
    for torn in home.glob(f".{_BEGUN}.*"):
        torn.unlink()
    (home / _BEGUN).unlink()
    sync_folder(home)


def _to_change(formats: tuple[Format, ...]) -> list[str]:
    return [each.name for each in formats if each.changes]


def _is_outdated(begun: Begun, formats: tuple[Format, ...], source: Source) -> bool:
    """Return whether an older version worked on the home after the backup, which it can while nothing is changed."""
    unchanged = formats == begun.formats
    return unchanged and (_newest(source) != begun.newest or not still_holds(begun.backup, source))


def _newest(source: Source) -> int:
    found = format_of(source.store.path)
    return 0 if found is None else found.newest


def _beside(home: Path) -> Path:
    return home.with_name(f"{home.name}.before-upgrade-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
