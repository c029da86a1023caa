"""The types of the tables are those that DuckDB itself gives to the columns of Arrow."""

import duckdb
import pyarrow as pa
import pytest

from streams.store.tables import SQL_TYPES, TABLES


@pytest.mark.parametrize("schema", TABLES.values(), ids=list(TABLES))
def test_each_column_has_the_type_that_duckdb_reads_it_as(schema: pa.Schema) -> None:
    with duckdb.connect() as connection:
        connection.register("empty", schema.empty_table())
        described = connection.execute("SELECT column_name, column_type FROM (DESCRIBE FROM empty)").fetchall()
    assert described == [(column.name, SQL_TYPES[column.type]) for column in schema]
