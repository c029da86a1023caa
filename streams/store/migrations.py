"""Stores of older versions are brought to the tables of this one when they are opened.

`streams.store.database` calls it for a file, `streams.store.ducklake` for a lake.
"""

import shutil
from pathlib import Path

import duckdb
import structlog

from ratchet_client.crash_points import CrashPoint, reach
from streams import schema_versions
from streams.errors import StoreError
from streams.runtime.files import replacing

log = structlog.get_logger()

# In schema 1, actions and observations were texts, and reasoning was a column. Schema 2 has messages.
SCHEMA = schema_versions.STORE

_ACTION = """CASE
    WHEN {0} IS NULL THEN NULL
    WHEN {1} IS NULL THEN json_object('role', 'assistant', 'content', {0})
    ELSE json_object('role', 'assistant', 'content', {0}, 'reasoning_content', {1})
END"""
_OBSERVATION = "CASE WHEN {0} IS NOT NULL THEN json_array(json_object('role', 'user', 'content', {0})) END"
_STEP = (
    f"json_object('action', {_ACTION.format('step.action', 'step.reasoning_content')}, "
    f"'observation', {_OBSERVATION.format('step.observation')})"
)
_STEP_OF_SCHEMA_1 = '[{"action": "VARCHAR", "observation": "VARCHAR", "reasoning_content": "VARCHAR"}]'
_STEPS = f"list_transform(from_json(steps, '{_STEP_OF_SCHEMA_1}'), lambda step: {_STEP})"
# The columns that came last to a table of schema 1: files of its first versions lack them.
_LATE_COLUMNS = {"transitions": ("principal", "reasoning"), "recoveries": ("principal",)}
_TO_SCHEMA_2 = {
    "transitions": f"""
        SELECT * EXCLUDE (reasoning) REPLACE (
            ({_ACTION.format("action", "reasoning")})::VARCHAR AS action,
            ({_OBSERVATION.format("observation")})::VARCHAR AS observation
        ), NULL::VARCHAR AS tools""",
    "fatalities": f"SELECT * REPLACE (({_ACTION.format('action', 'NULL')})::VARCHAR AS action)",
    "recoveries": f"SELECT * REPLACE (to_json({_STEPS})::VARCHAR AS steps)",
}


def schema_of(connection: duckdb.DuckDBPyConnection, database: str | None = None) -> int | None:
    """The schema of the tables in a database, by default the connection's; None where it has none."""
    tables = _tables(connection, database)
    if "schema_version" in tables:
        return int(connection.execute(f"SELECT max(version) FROM {_within(database)}schema_version").fetchall()[0][0])
    return 1 if tables else None


def refuse_newer(schema: int | None, where: str) -> None:
    """Raise `StoreError` for a store that a newer version of Ratchet wrote."""
    if schema is not None and schema > SCHEMA:
        raise StoreError(
            f"{where} has schema {schema}, and this version of Ratchet knows schemas up to {SCHEMA}: a newer version "
            "wrote it. Install that version again, or open a copy from before"
        )


def copy_beside(path: Path, schema: int) -> Path:
    """Copy a store's file, which must not be open; what an earlier try left is replaced. Raises `StoreError`."""
    copy = path.with_name(f"{path.name}.schema-{schema}")
    try:
        for torn in path.parent.glob(f".{copy.name}.*"):
            torn.unlink()
        with path.open("rb") as file, replacing(copy, path.stat().st_mode & 0o777) as target:
            shutil.copyfileobj(file, target, 2**20)
    except OSError as error:
        raise StoreError(
            f"the store {path} must be brought from schema {schema} to {SCHEMA}, and could not be copied to {copy} "
            f"before: {error}; nothing was changed. Make room for a second file of {path.stat().st_size} bytes"
        ) from error
    log.info("the store was copied before its tables are changed", copy=str(copy), schema=schema)
    return copy


def migrate(connection: duckdb.DuckDBPyConnection, schema: int | None, database: str | None = None) -> None:
    """Bring the tables to `SCHEMA` in one transaction, or note that new tables have it. `schema` is what they have."""
    prefix, tables = _within(database), _tables(connection, database)
    connection.begin()
    try:
        if schema == 1:
            for table in tables & _TO_SCHEMA_2.keys():
                for column in _LATE_COLUMNS.get(table, ()):
                    connection.execute(f"ALTER TABLE {prefix}{table} ADD COLUMN IF NOT EXISTS {column} VARCHAR")
                connection.execute(f"CREATE TABLE {prefix}migrated AS {_TO_SCHEMA_2[table]} FROM {prefix}{table}")
                connection.execute(f"DROP TABLE {prefix}{table}")
                connection.execute(f"ALTER TABLE {prefix}migrated RENAME TO {table}")
        connection.execute(f"CREATE TABLE IF NOT EXISTS {prefix}schema_version (version INTEGER)")
        connection.execute(f"INSERT INTO {prefix}schema_version VALUES ({SCHEMA})")
        reach(CrashPoint.MIGRATION_BEFORE)
        connection.commit()
        reach(CrashPoint.MIGRATION_AFTER)
    except BaseException:
        connection.rollback()
        raise
    if schema is not None:
        log.info("the store has new tables", schema=SCHEMA, before=schema)


def fill_columns(connection: duckdb.DuckDBPyConnection, database: str | None = None) -> None:
    """Fill what files of older versions lacked and other tables say: when outcomes were recorded."""
    prefix = _within(database)
    if connection.execute(f"SELECT 1 FROM {prefix}outcomes WHERE recorded_at IS NULL LIMIT 1").fetchall():
        connection.execute(
            f"UPDATE {prefix}outcomes SET recorded_at = events.recorded_at FROM {prefix}events AS events "
            "WHERE outcomes.recorded_at IS NULL AND outcomes.event_id = events.event_id"
        )


def _tables(connection: duckdb.DuckDBPyConnection, database: str | None) -> set[str]:
    found = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = coalesce($database, current_database())",
        {"database": database},
    )
    return {name for (name,) in found.fetchall()}


def _within(database: str | None) -> str:
    return "" if database is None else f"{database}."
