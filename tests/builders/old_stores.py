"""A store as the version wrote it in which actions and observations were texts."""

from pathlib import Path

import duckdb

# Dumped from a file that version 0.1 wrote: two trusted episodes, one of them with reasoning, a failed one, one without
# an outcome, the branches and a sandbox failure of a state, a recovery, and two requests that were not published yet.
SCHEMA_1 = (Path(__file__).parents[1] / "streams" / "store" / "store_of_schema_1.sql").read_text()


def store_of_schema_1(path: Path, *changes: str) -> Path:
    """A file of that version; `changes` are statements after which it is closed."""
    with duckdb.connect(str(path)) as connection:
        for statement in (SCHEMA_1, *changes):
            connection.execute(statement)
    return path


def content(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables of a file, in the order in which they lie there."""
    with duckdb.connect(str(path), read_only=True) as connection:
        tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        return {name: connection.execute(f"FROM {name}").fetchall() for (name,) in tables}
