"""Queries of clients that may read some rows only, over a database that has no others.

Views with a condition in the store's own database would not do: other names of a table lead past them, and a condition
of the query's own may be looked at before theirs, so that its error tells of a row that is not shown. So each query has
a database of its own, in memory, with copies of the rows that its client may read. It has no file, cannot attach one,
and ends with the query; whatever SQL comes can reach nothing else.
"""

import re
import threading

import duckdb
import pyarrow as pa

from streams.access.tokens import RowFilter
from streams.errors import StoreError
from streams.store.database import Limits, Parameters, RunningQuery, create_table
from streams.store.queries.filtered import ROWS
from streams.store.tables import TABLES

_ROWS = "rows_that_may_be_read"


class FilteredQuery(RunningQuery):
    """One SELECT over the `rows` of the store that its client may read, which `source` reads from the store."""

    def __init__(self, source: RunningQuery, rows: RowFilter, memory: str) -> None:
        limits: Limits = {"threads": "1", "memory_limit": memory, "temp_directory": ""}
        super().__init__(duckdb.connect(":memory:", config=limits))
        self._source = source
        self._rows = rows
        self._interrupted = threading.Event()

    def start(self, sql: str, parameters: Parameters | None = None) -> pa.Schema:
        """As that of every query. The tables that it names are copied before."""
        agents = self._rows.agents
        which: Parameters = {"prefix": self._rows.principal_prefix, "agents": None if agents is None else list(agents)}
        named = set(re.findall(r"\w+", sql.lower()))
        try:
            for lock in ("python_enable_replacements = false", "enable_external_access = false"):
                self._cursor.execute(f"SET {lock}")
            self._cursor.execute("SET lock_configuration = true")
            for name, schema in TABLES.items():
                create_table(self._cursor, name, schema)
                if name in ROWS and name in named:
                    self._copy(name, which)
        except duckdb.Error as error:
            raise StoreError(
                f"the rows that this token may read could not be copied for the query: {error}; name fewer tables in "
                "it, or raise store.memory (RATCHET_STORE__MEMORY)"
            ) from error
        return super().start(sql, parameters)

    def interrupt(self) -> None:
        self._interrupted.set()
        self._source.interrupt()
        super().interrupt()

    def close(self) -> None:
        super().close()
        self._source.close()

    def _copy(self, name: str, which: Parameters) -> None:
        self._source.start(ROWS[name], which)
        while (batch := self._source.next_rows()) is not None:
            if self._interrupted.is_set():
                raise StoreError("the query was interrupted")
            self._cursor.register(_ROWS, pa.Table.from_batches([batch]))
            self._cursor.execute(f"INSERT INTO {name} SELECT * FROM {_ROWS}")
            self._cursor.unregister(_ROWS)
