"""A copy of the store as Parquet files, all of one moment, and a store that is made of such files. Backups use both.

Parquet, and not DuckDB's own file: whatever is open or half written in that, the files hold the rows and nothing else.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ratchet_client.crash_points import CrashPoint, reach
from ratchet_client.settings import FrozenModel
from streams import schema_versions
from streams.errors import StoreError
from streams.store.client import StoreClient
from streams.store.database import ROWS_AT_ONCE, Database, Parameters
from streams.store.queries.copies import MOMENT, ROWS
from streams.store.tables import TABLES

_ROWS_OF_A_GROUP = 50 * ROWS_AT_ONCE

# The rows of a SELECT, whichever process has the store open.
Read = Callable[[str, Parameters], Awaitable[pa.RecordBatchReader]]
Watch = Callable[[str], None]


class Offset(FrozenModel):
    """The offset to read next of a partition; under the topic `outbox`, the sequence to publish next."""

    topic: str
    partition: int
    next: int


class StoreCopy(FrozenModel):
    """The content of a copy: all rows up to the sequence `as_of`, counted by table, and the offsets of that moment."""

    store_schema: int = schema_versions.STORE
    as_of: int
    offsets: tuple[Offset, ...]
    rows: dict[str, int]


def reading_through(client: StoreClient, scratch: Path) -> Read:
    """Read through the record role that has the store open; rows wait in the file `scratch`."""

    async def read(sql: str, parameters: Parameters) -> pa.RecordBatchReader:
        await client.download(sql, parameters, scratch)
        return pa.ipc.open_stream(scratch.open("rb"))

    return read


def reading_in(database: Database) -> Read:
    """Read in this process, which has the store open."""

    async def read(sql: str, parameters: Parameters) -> pa.RecordBatchReader:
        return database.connection.cursor().execute(sql, parameters).to_arrow_reader(ROWS_AT_ONCE)

    return read


async def copy_store(read: Read, folder: Path, watch: Watch) -> StoreCopy:
    """Write a file of each table into `folder`. Raises `StoreError`."""
    try:
        (moment,) = (await read(MOMENT, {})).read_all().to_pylist()
        as_of, offsets = moment["as_of"], moment["offsets"] or []
        counted = {}
        for name, schema in TABLES.items():
            watch(name)
            reach(CrashPoint.BACKUP_STEP_BEFORE)
            if name in ROWS:
                rows = await read(ROWS[name], {"as_of": as_of})
            else:
                rows = pa.Table.from_pylist(offsets, schema=schema).to_reader()
            counted[name] = _write(rows, schema, _file(folder, name))
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise StoreError(f"the store could not be copied to {folder}: {error}; make room, and try again") from error
    return StoreCopy(as_of=as_of, offsets=tuple(Offset(**each) for each in offsets), rows=counted)


def check_copy(folder: Path, copy: StoreCopy) -> None:
    """Raise `StoreError` unless the files in `folder` have as many rows as `copy` says."""
    for name, count in copy.rows.items():
        try:
            found = pq.read_metadata(_file(folder, name)).num_rows
        except (pa.ArrowException, OSError) as error:
            raise StoreError(f"{_file(folder, name)} cannot be read: {error}; take another backup") from error
        if found != count:
            raise StoreError(f"{_file(folder, name)} has {found} rows and should have {count}; take another backup")


def make_store(folder: Path, copy: StoreCopy, path: Path) -> None:
    """Make the store `path` of the files in `folder`, as a version that knew this schema left it.

    A store of an older schema is brought to the newest when it is opened. Raises `StoreError` where the rows or offsets
    do not come to those that `copy` has, or a newer version made them.
    """
    if copy.store_schema > schema_versions.STORE:
        raise StoreError(
            f"the copy in {folder} has schema {copy.store_schema}, and this version of Ratchet knows schemas up to "
            f"{schema_versions.STORE}: install the newer version that made it"
        )
    try:
        with duckdb.connect(str(path), config={"threads": "1"}) as connection:
            for name in copy.rows:
                file = pq.ParquetFile(_file(folder, name))
                reader = pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(ROWS_AT_ONCE))
                reach(CrashPoint.BACKUP_STEP_BEFORE)
                connection.register("copied", reader)
                connection.execute(f"CREATE TABLE {name} AS FROM copied")
                connection.unregister("copied")
            connection.execute("CREATE TABLE schema_version (version INTEGER)")
            connection.execute("INSERT INTO schema_version VALUES ($version)", {"version": copy.store_schema})
            connection.execute("CHECKPOINT")
            found = {name: _count(connection, name) for name in copy.rows}
            offsets = {
                Offset(topic=t, partition=p, next=n) for t, p, n in connection.execute("FROM offsets").fetchall()
            }
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise StoreError(
            f"the store {path} could not be made of {folder}: {error}; make room, and try again"
        ) from error
    if found != copy.rows or offsets != set(copy.offsets):
        raise StoreError(f"the store made of {folder} has other rows or offsets than its manifest says: do not use it")


def _file(folder: Path, table: str) -> Path:
    return folder / f"{table}.parquet"


def _write(rows: pa.RecordBatchReader, schema: pa.Schema, path: Path) -> int:
    """Write the rows with the table's own types; returns how many there were."""
    written, waiting = 0, list[pa.RecordBatch]()
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:

        def flush() -> None:
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting).cast(schema))
                waiting.clear()

        for batch in rows:
            waiting.append(batch)
            written += batch.num_rows
            if sum(each.num_rows for each in waiting) >= _ROWS_OF_A_GROUP:
                flush()
        flush()
    return written


def _count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])
