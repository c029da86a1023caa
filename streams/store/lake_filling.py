"""Putting the rows of a store's file into a new lake. `ratchet backup restore --into-lake` does it."""

from contextlib import closing
from pathlib import Path

import duckdb

from streams.errors import StoreError
from streams.store.database import ROWS_AT_ONCE
from streams.store.ducklake import Lake
from streams.store.positions import SEQUENCE
from streams.store.queries.writer import NEXT_SEQUENCE, SET_OFFSET
from streams.store.settings import LakeSettings
from streams.store.tables import TABLES


def fill_lake(path: Path, settings: LakeSettings, memory: str) -> None:
    """Put all rows of the file `path`, which has the newest schema, into the lake, which is made where it is missing.

    All of them or none. Raises `StoreError` where the lake has rows already, cannot be reached or cannot be written,
    and `ConfigurationError` as `Lake.attach` does.
    """
    with (
        duckdb.connect(str(path), read_only=True, config={"threads": "1", "memory_limit": memory}) as file,
        closing(Lake.attach(settings.for_a_long_turn(), memory)) as lake,
        lake.transaction("fill the lake"),
    ):
        ((sequence,),) = file.execute(NEXT_SEQUENCE).fetchall()
        for name in TABLES:
            # A new lake has the sequence that comes next, and nothing else.
            if any(tuple(row.values())[:2] != SEQUENCE for row in lake.rows(f"FROM lake.{name} LIMIT 2")):
                raise StoreError(
                    f"the lake in {settings.data} has rows already: name an empty database and another folder, or drop "
                    "those; nothing was written to it"
                )
            rows = file.execute(f"FROM {name}").to_arrow_reader(ROWS_AT_ONCE)
            lake.connection.register("copied", rows)
            lake.execute(f"INSERT INTO lake.{name} BY NAME FROM copied")
            lake.connection.unregister("copied")
        topic, partition = SEQUENCE
        lake.execute(SET_OFFSET, {"topic": topic, "partition": partition, "next": sequence})
        for name in TABLES:
            copied, found = (
                int(each.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0]) for each in (file, lake.connection)
            )
            if found != copied + (name == "offsets"):
                raise StoreError(
                    f"the lake would have {found} rows in {name} and not {copied}: nothing was written to it"
                )
