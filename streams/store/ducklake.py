"""The store's tables in DuckLake: Parquet files, their catalog in PostgreSQL, and writers on several machines.

`docs/scale.md` says when and how. Needs the wheels duckdb-extension-ducklake and duckdb-extension-postgres-scanner.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import duckdb
from pydantic import Field

from ratchet_client.errors import ConfigurationError
from ratchet_client.settings import FrozenModel
from streams.errors import StoreError
from streams.store.database import create_table
from streams.store.migrations import SCHEMA, fill_columns, migrate, refuse_newer, schema_of
from streams.store.tables import TABLES

_LOCK = int.from_bytes(b"ratchet")


class LakeSettings(FrozenModel):
    """Settings of the lake. Every writer has the same settings."""

    catalog: str = Field(description="The PostgreSQL database of the catalog, as libpq has it: dbname=… host=… user=…")
    data: str = Field(description="Where the Parquet files are: a folder that every writer and reader sees.")
    memory: str = Field(default="1GB", description="DuckDB's memory limit.")
    turn_s: int = Field(default=60, ge=1, description="Longest time, in seconds, to wait for a turn, and to have one.")


def connect(settings: LakeSettings) -> duckdb.DuckDBPyConnection:
    """A connection for a `Store`, with the lake attached and its tables made.

    A lake of an older schema is brought to this one: DuckLake keeps its snapshots from before. Raises
    `ConfigurationError` when an extension is missing, `StoreError` when the lake cannot be reached or is of a newer
    version of Ratchet.
    """
    connection = duckdb.connect(":memory:", config={"threads": "1", "memory_limit": settings.memory})
    data = settings.data.rstrip("/") + "/"
    limits = f"-c lock_timeout={settings.turn_s}s -c idle_in_transaction_session_timeout={settings.turn_s}s"
    turns = f"{settings.catalog} options='{limits}'"
    try:
        for extension in ("ducklake", "postgres_scanner"):
            connection.execute(f"LOAD {_quoted(str(_extension(extension)))}")
        connection.execute(
            f"ATTACH {_quoted('ducklake:postgres:' + settings.catalog)} AS lake (DATA_PATH {_quoted(data)})"
        )
        connection.execute(f"ATTACH {_quoted(turns)} AS turns (TYPE postgres)")
        with turn(connection):
            schema = schema_of(connection, "lake")
            refuse_newer(schema, f"the lake in {data}")
            if schema != SCHEMA:
                migrate(connection, schema, "lake")
            for name, schema in TABLES.items():
                create_table(connection, name, schema, "lake.")
            fill_columns(connection, "lake")
        for name in TABLES:
            # Cursors begin in the in-memory database, whatever this connection uses.
            connection.execute(f"CREATE VIEW {name} AS FROM lake.{name}")
        connection.execute("USE lake")
        connection.execute("SET python_enable_replacements = false")
        connection.execute(f"SET allowed_directories = [{_quoted(data)}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
    except StoreError:
        connection.close()
        raise
    except duckdb.Error as error:
        connection.close()
        raise StoreError(f"cannot open the lake in {data}: {error}; is its PostgreSQL running?") from error
    return connection


@contextmanager
def turn(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Wait for this writer's turn. What is committed in turns has sequences in the order of the commits.

    DuckLake lets concurrent inserts pass, so two writers that looked up the last sequence would both use the next one.
    The turn is a lock in PostgreSQL, which ends with the process that has it. Raises `StoreError` when it is not had in
    time, or was lost to a time limit: DuckLake then refuses what came into the way of another writer, whole.
    """
    cursor = connection.cursor()
    try:
        cursor.begin()
        cursor.execute(f"FROM postgres_query('turns', 'SELECT 1 FROM pg_advisory_xact_lock({_LOCK})')").fetchall()
    except duckdb.Error as error:
        cursor.close()
        raise StoreError(f"no turn to write in the lake: {error}; is another writer stuck?") from error
    try:
        yield
    finally:
        try:
            cursor.rollback()
        except duckdb.Error as error:
            raise StoreError(f"the turn was lost: {error}; write less in one turn, or raise turn_s") from error
        finally:
            cursor.close()


def _extension(name: str) -> Path:
    package = f"duckdb_extension_{name}"
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        wheel = package.replace("_", "-")
        raise ConfigurationError(f"the lake needs {wheel}: pip install '{wheel}=={duckdb.__version__}'")
    # `INSTALL` would ask the internet for what is already here.
    return Path(spec.origin).parent / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
