"""The tables of the assembler's file and their version; the file of an older version is brought to these.

`state` opens it by them; `ratchet upgrade` does the same while no role runs, and asks for the version before.
"""

import sqlite3
from pathlib import Path

from ratchet_client.crash_points import CrashPoint, reach
from ratchet_client.syncing import sync_folder
from streams import schema_versions
from streams.assembly import index
from streams.errors import StoreError

# `traces.kind` is a `Kind`. A captured call, and feedback, is a trace of its own. Feedback whose call has not come is
# in the unit of its receipt, which is not open.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, trace TEXT NOT NULL, span TEXT NOT NULL,
    value BLOB, episode TEXT
);
CREATE INDEX IF NOT EXISTS records_of_trace ON records(trace);
CREATE TABLE IF NOT EXISTS traces (
    trace TEXT PRIMARY KEY, unit TEXT NOT NULL, name TEXT NOT NULL, kind INTEGER NOT NULL,
    rooted INTEGER NOT NULL, open INTEGER NOT NULL, bytes INTEGER NOT NULL, last REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS traces_of_unit ON traces(unit);
CREATE INDEX IF NOT EXISTS open_traces ON traces(unit) WHERE open;
CREATE INDEX IF NOT EXISTS traces_by_name ON traces(name);
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY, topic TEXT NOT NULL, key BLOB, value BLOB, headers TEXT NOT NULL
);
"""
# The file's name when the otlp role assembled spans.
_OLDER = "otlp.sqlite"
# SQLite's header has `user_version` here, big-endian. Opening the file would leave others beside it.
_USER_VERSION = slice(60, 64)


def file_of(path: Path) -> Path:
    """The file that opening `path` opens: that of a version in which the otlp role assembled spans, if no other."""
    older = path.with_name(_OLDER)
    return older if older.is_file() and not path.exists() else path


def version_of(path: Path) -> int | None:
    """The version of the tables in the file, 0 where it has none; None without a file. It is only read.

    Raises `StoreError` for a file that is not SQLite's.
    """
    try:
        with file_of(path).open("rb") as file:
            header = file.read(_USER_VERSION.stop)
    except FileNotFoundError:
        return None
    if header and not header.startswith(b"SQLite format 3\0"):
        raise StoreError(f"{file_of(path)} is not a file of SQLite: restore it from a backup, or move it away")
    return int.from_bytes(header[_USER_VERSION])


def open_tables(path: Path) -> sqlite3.Connection:
    """Open or create the file with the tables of this version. No other process may have it open.

    Raises `StoreError` for a file that a newer version wrote, and `sqlite3.Error`.
    """
    _take_over(path)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        refuse_newer(version, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # What was said leaves the file when its events are decided on.
        connection.execute("PRAGMA secure_delete = ON")
        connection.executescript(_SCHEMA + index.SCHEMA)
        if version != schema_versions.ASSEMBLY:
            connection.execute(f"PRAGMA user_version = {schema_versions.ASSEMBLY}")
            # `version_of` reads it in the file proper.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except BaseException:
        connection.close()
        raise
    return connection


def refuse_newer(version: int, path: Path) -> None:
    """Raise `StoreError` for a file that a newer version of Ratchet wrote."""
    if version > schema_versions.ASSEMBLY:
        raise StoreError(
            f"the assembler's file {path} has version {version}, and this version of Ratchet knows versions up to "
            f"{schema_versions.ASSEMBLY}: a newer version wrote it. Install that version again, or restore a backup "
            "from before"
        )


def _take_over(path: Path) -> None:
    """Bring the file of a version in which the otlp role assembled spans to this one's name and tables."""
    older = file_of(path)
    if older == path:
        return
    connection = sqlite3.connect(older, isolation_level=None, timeout=5)
    try:
        if any(row[1] == "conversation" for row in connection.execute("PRAGMA table_info(traces)")):
            connection.execute("ALTER TABLE traces RENAME COLUMN conversation TO kind")
        # All of it is in the one file then.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode = DELETE")
    finally:
        connection.close()
    reach(CrashPoint.FILE_RENAME_BEFORE)
    older.rename(path)
    reach(CrashPoint.FILE_RENAME_AFTER)
    sync_folder(path.parent)
