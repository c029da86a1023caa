"""Queries of clients over a lake may name the store's tables, and nothing else of the database that attached it.

Functions of DuckDB's extensions carry out statements in PostgreSQL, or remove snapshots, from within a SELECT, and
views of the system tell how the catalog is reached. `streams.store.ducklake` makes its queries of this kind.
"""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from streams.errors import StoreError
from streams.store.database import Parameters, RunningQuery, query_failures
from streams.store.tables import TABLES

_FUNCTIONS = frozenset({"generate_series", "json_each", "json_tree", "range", "repeat", "unnest"})
_REMEDY = "name tables of the store alone, in one SELECT"


class LakeQuery(RunningQuery):
    """One SELECT over the tables of the lake."""

    def start(self, sql: str, parameters: Parameters | None = None) -> pa.Schema:
        """As that of every query. Raises `StoreError` also for one that names anything else than the store's tables."""
        with query_failures():
            (told,) = self._cursor.execute("SELECT json_serialize_sql($sql)", {"sql": sql}).fetchall()[0]
        try:
            statements = json.loads(told)
        except RecursionError as error:
            raise StoreError("the query is nested too deeply: write it as several, or with WITH") from error
        refuse_foreign(statements)
        return super().start(sql, parameters)


def refuse_foreign(statements: dict[str, Any]) -> None:
    """Raise `StoreError` unless SQL, as `json_serialize_sql` gives it, names nothing but the store's tables."""
    if statements["error"]:
        raise StoreError(f"the query failed: {statements['error_message']}; {_REMEDY}")
    nodes = list(_nodes(statements))
    named = {each["key"].lower() for node in nodes if "cte_map" in node for each in node["cte_map"]["map"]}
    for node in nodes:
        if node.get("type") == "TABLE_FUNCTION" and not _is_harmless(node["function"]):
            raise StoreError(f"a query over a lake cannot call {node['function']['function_name']}: {_REMEDY}")
        if node.get("type") == "BASE_TABLE" and not _is_stored(node, named):
            raise StoreError(f"a query over a lake cannot read {node['table_name']}: {_REMEDY}")


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """All objects within a JSON value."""
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            yield each
            left += each.values()
        elif isinstance(each, list):
            left += each


def _is_harmless(function: dict[str, Any]) -> bool:
    return function["function_name"].lower() in _FUNCTIONS and not function["schema"] and not function["catalog"]


def _is_stored(table: dict[str, Any], named: set[str]) -> bool:
    """Return whether it is a table of the store, or one that the query itself named."""
    name, within = table["table_name"].lower(), (table["catalog_name"], table["schema_name"])
    if name in TABLES:
        return within in (("", ""), ("", "lake"), ("lake", "main"))
    # A name of the system's would mean its view wherever the query's own is not seen.
    return name in named and within == ("", "") and not name.startswith(("duckdb_", "pg_", "pragma_", "sqlite_"))
