"""The DuckDB file: its only writer, its tables and queries, the query API and the client of it.

Imports `trust`, `kafka`, `runtime`. Queries are in `queries`, inserts and DDL in `database`.
"""
