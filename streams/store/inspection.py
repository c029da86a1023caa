"""The schema of a store's file and how its tables differ from this version's, without opening it for writing.

`ratchet upgrade` asks for it before it changes anything.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import duckdb

from ratchet_client.settings import FrozenModel
from streams.errors import StoreError
from streams.store.migrations import SCHEMA, schema_of
from streams.store.opening import remedy
from streams.store.tables import TABLES

_COLUMNS = "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal"


class StoreFormat(FrozenModel):
    """The schema `version` of a store's tables, and the sequence of its newest row, 0 where there is none.

    Of a store of this version's schema, `lacks` are the tables, and the columns as `table.column`, that opening it
    adds, and `unknown` those that this version does not have.
    """

    version: int
    newest: int
    lacks: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def format_of(path: Path) -> StoreFormat | None:
    """The format of the store's file; None where there is no file, or nothing in it.

    Raises `StoreError` where it is damaged, or another process has it open.
    """
    if not path.exists():
        return None
    try:
        with duckdb.connect(str(path), read_only=True, config={"threads": "1"}) as connection:
            version = schema_of(connection)
            rows = connection.execute(
                "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal"
            ).fetchall()
            numbered = [table for table, column in rows if column == "sequence"]
            newest = max((_newest(connection, table) for table in numbered), default=0)
    except duckdb.Error as error:
        raise StoreError(f"cannot read the store {path}: {error}{remedy(error)}") from error
    if version is None:
        return None
    if version != SCHEMA:
        return StoreFormat(version=version, newest=newest)
    found = _named((table, column) for table, column in rows if table != "schema_version")
    ours = _named((table, column) for table, schema in TABLES.items() for column in schema.names)
    return StoreFormat(version=version, newest=newest, lacks=_beyond(ours, found), unknown=_beyond(found, ours))


def _newest(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    return int(connection.execute(f'SELECT coalesce(max(sequence), 0) FROM "{table}"').fetchall()[0][0])


def _named(columns: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    tables = dict[str, list[str]]()
    for table, column in columns:
        tables.setdefault(table, []).append(column)
    return tables


def _beyond(these: Mapping[str, list[str]], others: Mapping[str, list[str]]) -> tuple[str, ...]:
    """The tables and columns of `these` that `others` do not have."""
    return tuple(
        name
        for table, columns in these.items()
        for name in (
            [table]
            if table not in others
            else [f"{table}.{column}" for column in columns if column not in others[table]]
        )
    )
