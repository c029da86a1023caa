"""Erasing a principal, or an episode, from the store's file: a new file without its rows takes the old one's place.

DuckDB only marks deleted rows, so the file is written from scratch. No process may have the store open: the record role
calls it before it opens the store. It may be killed at any instant and begun again; the last step is one rename.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from ratchet_client.crash_points import CrashPoint, reach
from ratchet_client.syncing import sync_folder
from streams.errors import ErasureError
from streams.store.database import Database
from streams.store.migrations import SCHEMA
from streams.store.queries.erasure import IS_ERASED
from streams.store.queries.writer import next_sequence
from streams.store.rewriting import ErasedSubject, Rewriting, StoreErased
from streams.store.settings import StoreSettings
from streams.store.tables import TABLES


class FileErasure:
    """The erasure of one subject from a DuckDB file."""

    def __init__(self, settings: StoreSettings) -> None:
        self._path, self._memory = settings.path, settings.memory
        self._new = self._path.with_name(f".{self._path.name}.erasing")

    def is_done(self, erasure_id: str) -> bool:
        """Return whether the file that is in place is the new one."""
        database = Database.open(self._path, self._memory)
        try:
            return bool(database.rows(IS_ERASED, {"erasure": erasure_id}))
        finally:
            # What waits in the write-ahead log must be in the file that is copied.
            database.close()

    @contextmanager
    def erasing(self, subject: ErasedSubject) -> Iterator[StoreErased]:
        """Write the new file and say what it lacks; at the end of the block it takes the store's place.

        Call it after `is_done`. Raises `ErasureError` where it cannot be written, or does not hold exactly what stays.
        """
        _remove(self._new)
        yield self._write(subject)
        with self._new.open("rb") as file:
            os.fsync(file.fileno())
        reach(CrashPoint.ERASURE_STEP_BEFORE)
        os.replace(self._new, self._path)
        reach(CrashPoint.ERASURE_STEP_BEFORE)
        sync_folder(self._path.parent)

    def clean_up(self) -> None:
        """Remove what an erasure that was killed, and migrations, left beside the store."""
        _remove(self._new)
        for copy in self._path.parent.glob(f"{self._path.name}.schema-*"):
            copy.unlink()

    def _write(self, subject: ErasedSubject) -> StoreErased:
        old = str(self._path).replace("'", "''")
        limits: dict[str, str | bool | int | float | list[str]] = {"threads": "1", "memory_limit": self._memory}
        try:
            with duckdb.connect(str(self._new), config=limits) as connection:
                connection.execute(f"ATTACH '{old}' AS old (READ_ONLY)")
                rewriting = Rewriting(connection, tuple(TABLES), old="old.", prefix="", suffix="", erased="erased")
                rewriting.decide(subject)
                ((sequence,),) = connection.execute(next_sequence("old.")).fetchall()
                erased = rewriting.write(subject, sequence)
                connection.execute("CREATE TABLE schema_version (version INTEGER)")
                connection.execute(f"INSERT INTO schema_version VALUES ({SCHEMA})")
                connection.execute("DETACH old")
                connection.execute("CHECKPOINT")
        except duckdb.Error as error:
            raise ErasureError(
                f"the store {self._path} could not be written without what is to be erased: {error}; it is as it was. "
                "Make room for a second file of its size; it is tried again when the record role starts"
            ) from error
        return erased


def _remove(new: Path) -> None:
    for path in (new, new.with_name(f"{new.name}.wal")):
        path.unlink(missing_ok=True)
