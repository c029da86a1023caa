"""The DuckDB file: its only writer, its tables and queries, the query API and the client of it.

Imports `trust`, `kafka`, `runtime`. Every SQL text of the product is in `queries`.
"""
