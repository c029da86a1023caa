"""The store's tables in DuckLake: Parquet files, their catalog in PostgreSQL, and writers on several machines.

`docs/scale.md` says when and how. Needs the extra `lake`: the wheels duckdb-extension-ducklake and
duckdb-extension-postgres-scanner.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Self

import duckdb

from ratchet_client.errors import ConfigurationError
from streams.errors import StoreError
from streams.store.database import Database, Parameters, RunningQuery, create_table
from streams.store.lake_queries import LakeQuery
from streams.store.migrations import SCHEMA, fill_columns, migrate, refuse_newer, schema_of
from streams.store.positions import SEQUENCE
from streams.store.queries.writer import next_sequence
from streams.store.settings import LakeSettings
from streams.store.tables import TABLES

# Numbers of advisory locks, which are those of the catalog's database.
_WRITING = int.from_bytes(b"ratchet")
_DRAINING = int.from_bytes(b"outbox")

_REMEDY = (
    "look whether its PostgreSQL runs, whether [store.lake] is that of the other record roles, and whether "
    "RATCHET_STORE__LAKE__PASSWORD or libpq's own file has the password"
)
# In the folder of the data from the first attachment on: a folder without it is that of a share that is not mounted.
_MARK = "ratchet-lake"
# A file of 16 MB is large enough to be read well, and is not written once more. So many files take a few seconds.
_MERGE = "CALL ducklake_merge_adjacent_files('lake', max_file_size => 16777216, max_compacted_files => 500)"
_REMOVE_UNREAD = "CALL ducklake_cleanup_old_files('lake', older_than => now() - INTERVAL 1 HOUR)"
# What no snapshot but the last one has: in the catalog, in files, and in files that no commit came to name.
_REMOVE_HISTORY = (
    "CALL ducklake_expire_snapshots('lake', older_than => now())",
    "CALL ducklake_cleanup_old_files('lake', cleanup_all => true)",
    "CALL ducklake_delete_orphaned_files('lake', cleanup_all => true)",
)
_IS_CATALOG = "FROM postgres_query('turns', 'SELECT to_regclass(''ducklake_metadata'') IS NOT NULL')"
_DATA_PATH = "FROM postgres_query('turns', 'SELECT value FROM ducklake_metadata WHERE key = ''data_path''')"


class Lake(Database):
    """The tables in a lake, for one of its writers. Each transaction is a turn of its own."""

    shared: ClassVar[bool] = True

    def __init__(self, connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
        super().__init__(connection)
        self._folder = folder

    @classmethod
    def attach(cls, settings: LakeSettings, memory: str) -> Self:
        """Attach the lake, and make it where it is missing; `memory` is DuckDB's limit.

        A lake of an older schema is brought to this one: DuckLake keeps its snapshots from before. Raises
        `ConfigurationError` when an extension is missing, `StoreError` when the lake cannot be reached or is of a newer
        version of Ratchet.
        """
        return cls(connect(settings, memory), folder_of(settings))

    def close(self) -> None:
        self.connection.close()

    @contextmanager
    def transaction(self, purpose: str) -> Iterator[None]:
        """As that of every database, in a turn. Raises `StoreError` also when there is none to be had.

        Nothing is written where the folder is not that of the lake any more.
        """
        _refuse_unmounted(self._folder)
        with turn(self.connection), super().transaction(purpose):
            yield

    @contextmanager
    def draining(self) -> Iterator[None]:
        with turn(self.connection, _DRAINING):
            yield

    def tidy(self, keep_days: float) -> int:
        """In a turn, merge small Parquet files of each table, and forget snapshots older than `keep_days`.

        Returns how many files were merged away. What is left of both is removed an hour later, when no query reads it
        any more. Raises `StoreError`.
        """
        try:
            with turn(self.connection):
                merged = self.connection.execute(_MERGE).fetchall()
                self.connection.execute(_forget_before(keep_days))
                self.connection.execute(_REMOVE_UNREAD)
        except duckdb.Error as error:
            raise StoreError(f"the files of the lake cannot be tidied up: {error}; {_REMEDY}") from error
        return sum(before - after for *_, before, after in merged)

    def remove_history(self) -> None:
        """Remove all snapshots but the last one, and at once the files that only they have.

        A query that reads one of these files fails. Raises `StoreError`.
        """
        _refuse_unmounted(self._folder)
        try:
            with turn(self.connection):
                for statement in _REMOVE_HISTORY:
                    self.connection.execute(statement).fetchall()
        except duckdb.Error as error:
            raise StoreError(f"earlier snapshots of the lake cannot be removed: {error}; {_REMEDY}") from error

    def rows(self, sql: str, parameters: Parameters | None = None) -> list[dict[str, Any]]:
        """All rows of a query. Raises `StoreError` when the lake cannot be read."""
        try:
            return super().rows(sql, parameters)
        except duckdb.Error as error:
            raise StoreError(f"the lake cannot be read: {error}; {_REMEDY}") from error

    def begin_query(self) -> RunningQuery:
        return LakeQuery(self.connection.cursor())


def connect(settings: LakeSettings, memory: str = "1GB") -> duckdb.DuckDBPyConnection:
    """A connection with the lake attached and its tables made. Raises as `Lake.attach` does."""
    folder = folder_of(settings)
    data = f"{folder}/"
    connection = _with_extensions(settings, memory)
    try:
        _attach_turns(connection, settings)
        with turn(connection):
            if not _is_there(connection, folder):
                # Before there is a catalog: killed in between, the next one to attach it makes both.
                folder.mkdir(parents=True, exist_ok=True)
                (folder / _MARK).write_text("The folder of a store of Ratchet, whose catalog is in PostgreSQL.\n")
            # The first one to attach it makes the catalog, which two at once cannot.
            connection.execute(
                f"ATTACH {_quoted('ducklake:postgres:' + settings.catalog)} AS lake "
                f"(DATA_PATH {_quoted(data)}, META_SECRET catalog)"
            )
            _make_tables(connection, data)
        connection.begin()
        for name in TABLES:
            # Cursors begin in the in-memory database, whatever this connection uses.
            connection.execute(f"CREATE VIEW {name} AS FROM lake.{name}")
        connection.commit()
        connection.execute("USE lake")
        connection.execute("SET python_enable_replacements = false")
        # It writes ids of episodes into statements for the catalog, which one with a NUL in it would break off.
        connection.execute("SET disabled_optimizers = 'join_filter_pushdown'")
        connection.execute(f"SET allowed_directories = [{_quoted(data)}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
    except (StoreError, ConfigurationError):
        connection.close()
        raise
    except (duckdb.Error, OSError) as error:
        connection.close()
        raise StoreError(f"cannot open the lake in {data}: {error}; {_REMEDY}") from error
    return connection


def folder_of(settings: LakeSettings) -> Path:
    """The folder of the Parquet files. Raises `ConfigurationError` where the settings name none."""
    if settings.data is None:
        raise ConfigurationError("the backend ducklake needs store.lake.data: set it to a folder")
    return settings.data


def check_lake(settings: LakeSettings) -> None:
    """Look whether a record role could write to the lake, and change nothing.

    Raises `ConfigurationError` when an extension is missing, or the folder of the data cannot be written to or is not
    that of the catalog, and `StoreError` when the catalog's database cannot be reached or the folder is not mounted.
    """
    folder = folder_of(settings)
    place = next((each for each in (folder, *folder.parents) if each.exists()), Path("/"))
    if not os.access(place, os.W_OK):
        raise ConfigurationError(
            f"the data of the lake cannot be written to {folder}: {place} is not writable for this process; give it "
            "the right to, or set store.lake.data to a folder that it can write"
        )
    with _with_extensions(settings, "100MB") as connection:
        try:
            _attach_turns(connection, settings)
        except duckdb.Error as error:
            raise StoreError(f"the catalog of the lake cannot be reached: {error}; {_REMEDY}") from error
        with turn(connection):
            _is_there(connection, folder)


def _is_there(connection: duckdb.DuckDBPyConnection, folder: Path) -> bool:
    """Return whether the catalog has a lake already, which must be the one in `folder`.

    Raises `ConfigurationError` where it is in another one, `StoreError` where `folder` lacks what was written to it.
    """
    (is_catalog,) = connection.execute(_IS_CATALOG).fetchall()[0]
    if not is_catalog:
        return False
    ((path,),) = connection.execute(_DATA_PATH).fetchall()
    if path != f"{folder}/":
        raise ConfigurationError(
            f"the catalog is that of a lake in {path}, and store.lake.data is {folder}: set it to that folder, or "
            "name an empty database for a new lake"
        )
    _refuse_unmounted(folder)
    return True


def _refuse_unmounted(folder: Path) -> None:
    if not (folder / _MARK).exists():
        raise StoreError(
            f"{folder} is not the folder that the lake was made in, for it has no {_MARK}: look whether the share is "
            "mounted; nothing was written to it"
        )


@contextmanager
def turn(connection: duckdb.DuckDBPyConnection, lock: int = _WRITING) -> Iterator[None]:
    """Wait for this writer's turn. What is committed in turns has sequences in the order of the commits.

    DuckLake lets concurrent inserts pass, so two writers that looked up the last sequence would both use the next one.
    The turn is a lock in PostgreSQL, which ends with the process that has it. Raises `StoreError` when it is not had in
    time, or was lost to a time limit: DuckLake then refuses what came into the way of another writer, whole.
    """
    cursor = connection.cursor()
    try:
        cursor.begin()
        cursor.execute(f"FROM postgres_query('turns', 'SELECT 1 FROM pg_advisory_xact_lock({lock})')").fetchall()
    except duckdb.Error as error:
        cursor.close()
        raise StoreError(
            f"no turn to write in the lake: {error}; is another writer stuck, or its PostgreSQL away?"
        ) from error
    try:
        yield
    finally:
        try:
            cursor.rollback()
        except duckdb.Error as error:
            raise StoreError(f"the turn was lost: {error}; write less in one turn, or raise turn_s") from error
        finally:
            cursor.close()


def _with_extensions(settings: LakeSettings, memory: str) -> duckdb.DuckDBPyConnection:
    """A connection with the extensions and the catalog's password, and nothing attached."""
    connection = duckdb.connect(":memory:", config={"threads": "1", "memory_limit": memory})
    try:
        for extension in ("ducklake", "postgres_scanner"):
            connection.execute(f"LOAD {_quoted(str(_extension(extension)))}")
        password = settings.password.get_secret_value()
        options = f", PASSWORD {_quoted(password)}" if password else ""
        connection.execute(f"CREATE SECRET catalog (TYPE postgres{options})")
    except BaseException:
        connection.close()
        raise
    return connection


def _attach_turns(connection: duckdb.DuckDBPyConnection, settings: LakeSettings) -> None:
    limits = f"-c lock_timeout={settings.turn_s}s -c idle_in_transaction_session_timeout={settings.turn_s}s"
    turns = f"{settings.catalog} options='{limits}'"
    connection.execute(f"ATTACH {_quoted(turns)} AS turns (TYPE postgres, SECRET catalog)")


def _make_tables(connection: duckdb.DuckDBPyConnection, data: str) -> None:
    """Make the tables in the lake, or bring them to this schema. It must be this writer's turn."""
    schema = schema_of(connection, "lake")
    refuse_newer(schema, f"the lake in {data}")
    if schema != SCHEMA:
        migrate(connection, schema, "lake")
    connection.begin()
    try:
        for name, columns in TABLES.items():
            create_table(connection, name, columns, "lake.")
        fill_columns(connection, "lake")
        topic, partition = SEQUENCE
        if not connection.execute("SELECT 1 FROM lake.offsets WHERE topic = $topic", {"topic": topic}).fetchall():
            numbered = f"SELECT $topic, $partition, sequence FROM ({next_sequence('lake.')})"
            connection.execute(f"INSERT INTO lake.offsets {numbered}", {"topic": topic, "partition": partition})
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def _extension(name: str) -> Path:
    package = f"duckdb_extension_{name}"
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            f"the backend ducklake needs {package.replace('_', '-')}=={duckdb.__version__}: install the extra `lake`, "
            "pip install 'ratchetd[lake]'"
        )
    # `INSTALL` would ask the internet for what is already here.
    return Path(spec.origin).parent / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"


def _forget_before(days: float) -> str:
    return f"CALL ducklake_expire_snapshots('lake', older_than => now() - INTERVAL '{round(days * 86_400)} seconds')"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
