"""DuckDB as the store uses it: Arrow inserts, transactions that explain their failure, and queries that only read."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import duckdb
import pyarrow as pa

from streams.errors import StoreError
from streams.runtime.crash_points import CrashPoint, reach
from streams.store.tables import TABLES


class Database:
    """One connection that has the tables. It does not lock: the store's writers take turns."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection

    @classmethod
    def open(cls, path: Path, memory: str) -> Self:
        """Open or create the file; `memory` is DuckDB's limit, such as 1GB.

        Raises `StoreError` when it is damaged, another process has it open, or another version of Ratchet made it.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            connection = duckdb.connect(str(path), config={"threads": "1", "memory_limit": memory})
            for name, schema in TABLES.items():
                connection.register("empty", schema.empty_table())
                connection.execute(f"CREATE TABLE IF NOT EXISTS {name} AS FROM empty")
                connection.unregister("empty")
                found = [column[0] for column in connection.execute(f"DESCRIBE {name}").fetchall()]
                if found != schema.names:
                    connection.close()
                    raise StoreError(
                        f"the store {path} was made by another version: its table {name} has the columns "
                        f"{', '.join(found)}; move the file away, and the log is read again from its beginning"
                    )
            # DDL in the write-ahead log is what DuckDB recovers worst.
            reach(CrashPoint.CHECKPOINT_BEFORE)
            connection.execute("CHECKPOINT")
            reach(CrashPoint.CHECKPOINT_AFTER)
            connection.execute("SET python_enable_replacements = false")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
        except duckdb.Error as error:
            raise StoreError(f"cannot open the store {path}: {error}; only one process may have it open") from error
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

    def insert(self, tables: Mapping[str, Sequence[tuple[object, ...]]]) -> None:
        """Append the rows of each table."""
        for name, rows in tables.items():
            if not rows:
                continue
            schema = TABLES[name]
            columns = [
                pa.array(column, type=kind) for column, kind in zip(zip(*rows, strict=True), schema.types, strict=True)
            ]
            self.connection.register("batch", pa.Table.from_arrays(columns, schema=schema))
            reach(CrashPoint.INSERT_BEFORE)
            self.connection.execute(f"INSERT INTO {name} SELECT * FROM batch")
            reach(CrashPoint.INSERT_AFTER)
            self.connection.unregister("batch")

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[Any]:
        """All rows of a statement."""
        return self.connection.execute(sql, list(parameters)).fetchall()

    def matching(self, sql: str, ids: Sequence[str], parameters: Sequence[object] = ()) -> list[Any]:
        """The rows of a SELECT that finds the ids in the table `wanted`."""
        # As a parameter, a list costs DuckDB a failing import for each of its elements.
        self.connection.register("wanted", pa.table([pa.array(ids, type=pa.string())], names=["id"]))
        rows = self.rows(sql, parameters)
        self.connection.unregister("wanted")
        return rows

    def query(self, sql: str) -> pa.Table:
        """The rows of one SELECT. Raises `StoreError` for anything else, and when DuckDB refuses it."""
        cursor = self.connection.cursor()
        try:
            statements = cursor.extract_statements(sql)
            if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                raise StoreError("the query API takes exactly one SELECT statement")
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            return cursor.execute(statements[0]).to_arrow_table()
        except duckdb.Error as error:
            raise StoreError(f"the query failed: {error}") from error
        finally:
            cursor.close()
