"""What to do about a store's file that DuckDB does not open."""

import duckdb

_DAMAGED = ("not a valid", "orrupt", "checksum")


def remedy(error: duckdb.Error) -> str:
    """A clause for the end of a message, with a leading semicolon; empty where DuckDB's own words must do.

    >>> remedy(duckdb.IOException('Could not set lock on file "store.duckdb"'))
    '; stop Ratchet, or what else has it open: only one process may'
    >>> remedy(duckdb.IOException('The file "store.duckdb" exists, but it is not a valid DuckDB database file!'))
    '; the file is damaged: restore a backup (`ratchet backup restore`)'
    >>> remedy(duckdb.IOException("Permission denied"))
    ''
    """
    told = str(error)
    if "lock" in told:
        return "; stop Ratchet, or what else has it open: only one process may"
    if isinstance(error, duckdb.SerializationException) or any(word in told for word in _DAMAGED):
        return "; the file is damaged: restore a backup (`ratchet backup restore`)"
    return ""
