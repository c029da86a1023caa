"""Erasing a principal, or an episode, from the store: a new file without its rows takes the old one's place.

DuckDB only marks deleted rows, so the file is written from scratch. No process may have the store open: the record role
calls it before it opens the store. `prepare` may be killed at any instant and begun again; `swap` is one rename.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import duckdb

from ratchet_client.crash_points import CrashPoint, reach
from ratchet_client.settings import FrozenModel
from ratchet_client.syncing import sync_folder
from streams.errors import ErasureError
from streams.store.database import Database
from streams.store.migrations import SCHEMA
from streams.store.queries.erasure import (
    GONE,
    GONE_EPISODES,
    GONE_TRAJECTORIES,
    IS_ERASED,
    NOTE_EPISODE,
    NOTE_ERASED,
    NOTE_SUBJECT,
    RETAINED,
    kept,
)
from streams.store.queries.writer import next_sequence
from streams.store.settings import StoreSettings
from streams.store.tables import TABLES


class Retained(FrozenModel):
    """Records of a partition, between two offsets, that the log holds until its retention is over."""

    topic: str
    partition: int
    first: int
    last: int
    records: int


class StoreErased(FrozenModel):
    """The rows that were left out, by table, and the ids of what they told: episodes, and the recoveries of these."""

    rows: dict[str, int]
    episodes: tuple[str, ...]
    recoveries: tuple[str, ...]
    retained: tuple[Retained, ...]


def is_erased(settings: StoreSettings, erasure_id: str) -> bool:
    """Return whether the new file of that erasure is in place."""
    database = Database.open(settings.path, settings.memory)
    try:
        return bool(database.rows(IS_ERASED, {"erasure": erasure_id}))
    finally:
        # What waits in the write-ahead log must be in the file that is copied.
        database.close()


def prepare(settings: StoreSettings, erasure_id: str, principal: str | None, episodes: tuple[str, ...]) -> StoreErased:
    """Write the new file beside the store, and check it. Call it after `is_erased`.

    Raises `ErasureError` where it cannot be written, or does not hold exactly what stays.
    """
    new = _new(settings.path)
    _remove(new)
    old = str(settings.path).replace("'", "''")
    limits: dict[str, str | bool | int | float | list[str]] = {"threads": "1", "memory_limit": settings.memory}
    try:
        with duckdb.connect(str(new), config=limits) as connection:
            connection.execute(f"ATTACH '{old}' AS old (READ_ONLY)")
            connection.execute("SET VARIABLE principal = $principal", {"principal": principal})
            connection.execute(GONE, {"principal": principal, "episodes": list(episodes)})
            for name in TABLES:
                reach(CrashPoint.ERASURE_STEP_BEFORE)
                connection.execute(f"CREATE TABLE {name} AS {kept(name)}")
            before, after = ({name: _count(connection, of, name) for name in TABLES} for of in ("old.", ""))
            report = StoreErased(
                rows={name: before[name] - after[name] for name in TABLES if before[name] != after[name]},
                episodes=_ids(connection, GONE_EPISODES),
                recoveries=_ids(connection, GONE_TRAJECTORIES),
                retained=(),
            )
            _note(connection, erasure_id, principal, episodes)
            connection.execute("CREATE TABLE schema_version (version INTEGER)")
            connection.execute(f"INSERT INTO schema_version VALUES ({SCHEMA})")
            _check(connection, before, report)
            columns = ("topic", "partition", "first", "last", "records")
            found = connection.execute(RETAINED, {"erasure": erasure_id}).fetchall()
            report = report.model_copy(
                update={"retained": tuple(Retained(**dict(zip(columns, row, strict=True))) for row in found)}
            )
            connection.execute("DETACH old")
            connection.execute("CHECKPOINT")
    except duckdb.Error as error:
        raise ErasureError(
            f"the store {settings.path} could not be written without what is to be erased: {error}; it is as it was. "
            "Make room for a second file of its size; it is tried again when the record role starts"
        ) from error
    return report


def swap(settings: StoreSettings) -> None:
    """Put the new file in the store's place, and remove the copies that older versions left of it."""
    new = _new(settings.path)
    with new.open("rb") as file:
        os.fsync(file.fileno())
    reach(CrashPoint.ERASURE_STEP_BEFORE)
    os.replace(new, settings.path)
    reach(CrashPoint.ERASURE_STEP_BEFORE)
    sync_folder(settings.path.parent)


def remove_copies(settings: StoreSettings) -> None:
    """Remove what an erasure that was killed, and migrations, left beside the store."""
    _remove(_new(settings.path))
    for copy in settings.path.parent.glob(f"{settings.path.name}.schema-*"):
        copy.unlink()


def _new(path: Path) -> Path:
    return path.with_name(f".{path.name}.erasing")


def _remove(new: Path) -> None:
    for path in (new, new.with_name(f"{new.name}.wal")):
        path.unlink(missing_ok=True)


def _note(
    connection: duckdb.DuckDBPyConnection, erasure_id: str, principal: str | None, episodes: tuple[str, ...]
) -> None:
    (sequence,) = (int(row[0]) for row in connection.execute(next_sequence("old.")).fetchall())
    connection.execute(NOTE_ERASED, {"erasure": erasure_id})
    for number, episode in enumerate(episodes):
        told = {"sequence": sequence + number, "erasure": erasure_id, "episode": episode}
        connection.execute(NOTE_EPISODE, told)
    if principal is not None:
        told = {"sequence": sequence + len(episodes), "erasure": erasure_id, "principal": principal}
        connection.execute(NOTE_SUBJECT, told)


def _check(connection: duckdb.DuckDBPyConnection, before: dict[str, int], report: StoreErased) -> None:
    """Raise `ErasureError` unless each table has what stays and no row of an erased episode."""
    wrong = [name for name in TABLES if name != "erased" and not _holds(connection, name, before[name], report)]
    if wrong:
        raise ErasureError(
            f"the new file of the store has not exactly the rows that stay in {', '.join(wrong)}; the store is as it "
            "was. It is tried again when the record role starts"
        )


def _holds(connection: duckdb.DuckDBPyConnection, name: str, before: int, report: StoreErased) -> bool:
    contents = [
        connection.execute(f"SELECT count(*), bit_xor(hash(each)), sum(hash(each)) FROM ({rows}) AS each").fetchall()
        for rows in (kept(name), f"FROM {name}")
    ]
    return contents[0] == contents[1] and _count(connection, "", name) + report.rows.get(name, 0) == before


def _count(connection: duckdb.DuckDBPyConnection, of: str, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {of}{table}").fetchall()[0][0])


def _ids(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[str, ...]:
    return tuple(_texts(connection.execute(sql).fetchall()))


def _texts(rows: list[tuple[str]]) -> Iterator[str]:
    return (text for (text,) in rows)
