"""Every query of the product, named by what it returns: a module for each reader of the store.

Values are parameters, `$name`; nothing is formatted into a text but other texts of this package. Tables are made, and
filled from Arrow, by the statements that `streams.store.database` and `streams.store.ducklake` generate from
`streams.store.tables`. The SQLite file of `streams.otlp` is another database: its SQL is there.
"""
