"""DuckDB as the store uses it: Arrow inserts, transactions that explain their failure, and queries that only read."""

import os
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias

import duckdb
import pyarrow as pa

from ratchet_client.crash_points import CrashPoint, reach
from streams.errors import StoreError
from streams.store.migrations import SCHEMA, copy_beside, fill_columns, migrate, refuse_newer, schema_of
from streams.store.opening import remedy
from streams.store.tables import SQL_TYPES, TABLES

Scalar: TypeAlias = str | int | float | bool | None
Parameter: TypeAlias = Scalar | Sequence[Scalar]
ROWS_AT_ONCE = 2048  # DuckDB's own unit

# A value for each `$name` in a query.
Parameters: TypeAlias = Mapping[str, object]
Limits: TypeAlias = dict[str, str | bool | int | float | list[str]]
# A value for each column of a table.
Row: TypeAlias = Mapping[str, object]


class Database:
    """One connection that has the tables. It does not lock: the store's writers take turns.

    `shared` says that other processes write to the tables too, as to those of a lake.
    """

    shared: ClassVar[bool] = False

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection

    @classmethod
    def open(cls, path: Path, memory: str, *, keep_copy: bool = True) -> Self:
        """Open or create the file; `memory` is DuckDB's limit, such as 1GB.

        A file of an older schema is copied, unless the caller has a copy, and brought to this one; one of this schema
        gets the columns that its tables lack, empty. Raises `StoreError` when it is damaged, cannot be written, is open
        in another process, or was made by a version of Ratchet that is newer or named columns otherwise.
        """
        _refuse_unwritable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        limits: Limits = {"threads": "1", "memory_limit": memory}
        try:
            connection = duckdb.connect(str(path), config=limits)
            schema = schema_of(connection)
            if schema != SCHEMA:
                connection = _brought_to_schema(connection, path, limits, schema, keep_copy)
            for name, columns in TABLES.items():
                found = create_table(connection, name, columns)
                if found != columns.names:
                    connection.close()
                    raise StoreError(
                        f"the store {path} was made by another version: its table {name} has the columns "
                        f"{', '.join(found)}; install that version again, or restore a backup from before it"
                    )
            fill_columns(connection)
            # DDL in the write-ahead log is what DuckDB recovers worst.
            reach(CrashPoint.CHECKPOINT_BEFORE)
            connection.execute("CHECKPOINT")
            reach(CrashPoint.CHECKPOINT_AFTER)
            connection.execute("SET python_enable_replacements = false")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
        except duckdb.Error as error:
            raise StoreError(f"cannot open the store {path}: {error}{remedy(error)}") from error
        return cls(connection)

    def close(self) -> None:
        """Write everything into the file proper and close it."""
        self.connection.execute("CHECKPOINT")
        self.connection.close()

    @contextmanager
    def transaction(self, purpose: str) -> Iterator[None]:
        """All or nothing. Raises `StoreError`, which names the purpose, when DuckDB fails."""
        try:
            self.connection.begin()
            try:
                yield
            except BaseException:
                self.connection.rollback()
                raise
            reach(CrashPoint.COMMIT_BEFORE)
            self.connection.commit()
            reach(CrashPoint.COMMIT_AFTER)
        except (duckdb.Error, pa.ArrowException) as error:
            raise StoreError(f"could not {purpose}: {error}; nothing of it was kept") from error

    @contextmanager
    def draining(self) -> Iterator[None]:
        """Hold it while the outbox is published: one process at a time does."""
        yield

    def tidy(self, keep_days: float) -> int:
        """Merge small files of the tables, where these are in many, and forget snapshots older than `keep_days`.

        Returns how many files there are less.
        """
        return 0

    def insert(self, tables: Mapping[str, Sequence[Row]]) -> None:
        """Append the rows of each table. Raises `StoreError` for a row that has not exactly its table's columns."""
        for name, rows in tables.items():
            if not rows:
                continue
            self.connection.register("batch", arrow_table(name, rows))
            reach(CrashPoint.INSERT_BEFORE)
            self.connection.execute(f"INSERT INTO {name} SELECT * FROM batch")
            reach(CrashPoint.INSERT_AFTER)
            self.connection.unregister("batch")

    def execute(self, sql: str, parameters: Parameters | None = None) -> None:
        """Carry out a statement that has no rows to give."""
        self.connection.execute(sql, parameters)

    def rows(self, sql: str, parameters: Parameters | None = None) -> list[dict[str, Any]]:
        """All rows of a query, each by the names of its columns."""
        self.connection.execute(sql, parameters)
        names = [column[0] for column in self.connection.description]
        return [dict(zip(names, row, strict=True)) for row in self.connection.fetchall()]

    def rows_of(self, ids: Sequence[str], sql: str, parameters: Parameters | None = None) -> list[dict[str, Any]]:
        """The rows of a query that finds `ids` in the table `wanted`."""
        # As a parameter, a list costs DuckDB a failing import for each of its elements.
        self.connection.register("wanted", pa.table([pa.array(ids, type=pa.string())], names=["id"]))
        rows = self.rows(sql, parameters)
        self.connection.unregister("wanted")
        return rows

    def query(self, sql: str, parameters: Parameters | None = None) -> pa.Table:
        """The rows of one SELECT, with a value for each `$name` in it.

        Raises `StoreError` for any other statement, for a parameter too many or too few, and when DuckDB refuses it.
        """
        query = self.begin_query()
        try:
            query.start(sql, parameters)
            return query.all_rows()
        finally:
            query.close()

    def begin_query(self) -> "RunningQuery":
        """A query beside the others, which `start` begins."""
        return RunningQuery(self.connection.cursor())


class RunningQuery:
    """One SELECT in a read-only transaction. For one thread at a time, but for `interrupt`."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor
        self._begun = False
        self._reader: pa.RecordBatchReader | None = None

    def start(self, sql: str, parameters: Parameters | None = None) -> pa.Schema:
        """Carry it out up to its first rows, with a value for each `$name` in it; the schema of these.

        Another one that is started after it sees the same state of the tables. Raises `StoreError` for any other
        statement, for a parameter too many or too few, and when DuckDB refuses it.
        """
        given = dict(parameters or {})
        with query_failures():
            statements = self._cursor.extract_statements(sql)
            if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                raise StoreError("the query API takes exactly one SELECT statement")
            _check_parameters(statements[0].named_parameters, given.keys())
            if not self._begun:
                self._cursor.execute("BEGIN TRANSACTION READ ONLY")
                self._begun = True
            self._reader = self._cursor.execute(statements[0], given).to_arrow_reader(ROWS_AT_ONCE)
        return self._reader.schema

    def next_rows(self) -> pa.RecordBatch | None:
        """The next rows, `ROWS_AT_ONCE` at most; None after the last. Raises `StoreError` when the query fails."""
        with query_failures():
            return next(self._reader, None) if self._reader is not None else None

    def all_rows(self) -> pa.Table:
        """The rest of the rows. Raises `StoreError` when the query fails."""
        if self._reader is None:
            raise StoreError("the query was not started: call start first")
        with query_failures():
            return self._reader.read_all()

    def interrupt(self) -> None:
        """Have what runs at this moment fail. Call it again until it has."""
        self._cursor.interrupt()

    def close(self) -> None:
        self._reader = None
        self._cursor.close()


@contextmanager
def query_failures() -> Iterator[None]:
    """Raise `StoreError` for what DuckDB refuses or fails in."""
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:  # a reader's failures are OSErrors
        raise StoreError(f"the query failed: {error}") from error


def _refuse_unwritable(path: Path) -> None:
    there = next((place for place in path.parents if place.exists()), Path("/"))
    for place in (path, there):
        if place.exists() and not os.access(place, os.W_OK):
            raise StoreError(
                f"the store {path} cannot be opened: {place} is not writable for this process, which must write it. "
                "Give it the right to, or set store.path to a place that it can write"
            )


def _brought_to_schema(
    connection: duckdb.DuckDBPyConnection, path: Path, limits: Limits, schema: int | None, keep_copy: bool
) -> duckdb.DuckDBPyConnection:
    """A connection to the file with tables of `SCHEMA`; with `keep_copy`, one that was older has a copy beside it."""
    try:
        refuse_newer(schema, f"the store {path}")
        if schema is not None and keep_copy:
            # What is copied must not miss what waits in the write-ahead log.
            connection.execute("CHECKPOINT")
            connection.close()
            copy_beside(path, schema)
            connection = duckdb.connect(str(path), config=limits)
        migrate(connection, schema)
    except BaseException:
        connection.close()
        raise
    return connection


def create_table(connection: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema, qualifier: str = "") -> list[str]:
    """Create a table where it is missing, or add the last columns of `schema` where they are missing; its columns."""
    types = {column.name: SQL_TYPES[column.type] for column in schema}
    columns = ", ".join(f'"{column}" {kind}' for column, kind in types.items())
    connection.execute(f"CREATE TABLE IF NOT EXISTS {qualifier}{name} ({columns})")
    found = [column for column, *_ in connection.execute(f"FROM {qualifier}{name} LIMIT 0").description]
    if found != schema.names[: len(found)]:
        return found
    for column in schema.names[len(found) :]:
        connection.execute(f'ALTER TABLE {qualifier}{name} ADD COLUMN "{column}" {types[column]}')
    return list(schema.names)


def arrow_table(name: str, rows: Sequence[Row]) -> pa.Table:
    """Rows of the table `name`, by the names of their columns, as Arrow has them.

    Raises `StoreError`, which names the columns, when a row has not exactly those of the table.
    """
    schema = TABLES[name]
    try:
        if set(map(len, rows)) != {len(schema.names)}:
            raise KeyError
        # As many as the table has, and each of the table's among them: the same.
        columns = zip(*map(itemgetter(*schema.names), rows), strict=True)
    except KeyError:
        wrong = next(row for row in rows if row.keys() != set(schema.names))
        raise StoreError(_mismatch(name, wrong.keys(), schema.names)) from None
    arrays = [pa.array(column, type=kind) for column, kind in zip(columns, schema.types, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _mismatch(table: str, given: Set[str], columns: Sequence[str]) -> str:
    missing = ", ".join(column for column in columns if column not in given) or "none"
    unknown = ", ".join(sorted(given - set(columns))) or "none"
    return f"a row of the table {table} lacks columns ({missing}) or has unknown ones ({unknown}): correct who made it"


def _check_parameters(named: Set[str], given: Set[str]) -> None:
    if named != given:
        wants, got = (", ".join(f"${name}" for name in sorted(names)) or "none" for names in (named, given))
        raise StoreError(f"the query names the parameters {wants} and was given {got}: give each of them one value")
