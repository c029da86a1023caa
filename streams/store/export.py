"""The transitions as of a sequence: listed and exported through the record role's query API.

Rows are only ever appended, so what is given as of a sequence never changes, but for this: episodes of principals that
withdrew are left out, whenever they withdrew. `ratchet transitions` and `ratchet export` call it.
"""

import os
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from streams.errors import StoreError
from streams.store.client import StoreClient
from streams.store.tables import TABLES

_PAGE = 5_000

Watch = Callable[[int, int], None]


class Origin(StrEnum):
    """Where a transition was made."""

    PRODUCTION = "production"
    BRANCH = "branch"


@dataclass(frozen=True, slots=True)
class Moment:
    """What is looked at: transitions up to `as_of`, of one origin or both, but for retractions up to `retracted_as_of`.

    `rows` are those that are shown, `withdrawn` those that are not, because their principal withdrew.
    """

    as_of: int
    retracted_as_of: int
    origin: Origin | None
    rows: int
    withdrawn: int


async def look_back(store: StoreClient, as_of: int | None, origin: Origin | None) -> Moment:
    """The moment of a sequence, by default the latest.

    Raises `StoreError` when the store does not answer, or has not come to that sequence: more would be added to it.
    """
    latest = (await store.status()).sequence
    if as_of is not None and as_of > latest:
        raise StoreError(f"the store has come to sequence {latest}, and not to {as_of}: name an earlier one")
    at = latest if as_of is None else as_of
    retracted = await store.query("SELECT coalesce(max(sequence), 0) AS sequence FROM retractions")
    moment = Moment(at, int(retracted["sequence"][0].as_py()), origin, 0, 0)
    counts = await store.query(
        f"SELECT count(*) FILTER ({_kept(moment)}) AS rows, count(*) AS rows_in_all FROM transitions {_where(moment)}"
    )
    rows, in_all = int(counts["rows"][0].as_py()), int(counts["rows_in_all"][0].as_py())
    return Moment(at, moment.retracted_as_of, origin, rows, in_all - rows)


async def newest(store: StoreClient, moment: Moment, limit: int) -> pa.Table:
    """The newest `limit` transitions of a moment, oldest of them first; the columns are the table's."""
    return await store.query(
        f"FROM (SELECT * FROM transitions {_where(moment)} AND {_kept(moment)} ORDER BY sequence DESC LIMIT {limit}) "
        "ORDER BY sequence"
    )


async def export_transitions(store: StoreClient, moment: Moment, to: Path, watch: Watch) -> int:
    """Write the transitions of a moment into the Parquet file `to`, in order of sequence; how many.

    The file appears when it is whole; its metadata say what moment it is. `watch` is told how many rows of how many are
    written. Raises `StoreError` when the store does not answer or the file cannot be written.
    """
    facts = {"as_of": moment.as_of, "retracted_as_of": moment.retracted_as_of, "origin": moment.origin or "all"}
    metadata = {f"ratchet.{name}": str(fact) for name, fact in facts.items()}
    schema = TABLES["transitions"].with_metadata(metadata)
    written = 0
    try:
        with _appearing_whole(to) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
            async with aclosing(_pages(store, moment)) as pages:
                async for page in pages:
                    writer.write_table(page.cast(schema))
                    written += page.num_rows
                    watch(written, moment.rows)
    except OSError as error:
        raise StoreError(f"the export {to} could not be written: {error}") from error
    return written


@contextmanager
def _appearing_whole(path: Path) -> Iterator[BinaryIO]:
    """A file that becomes `path` when it was written without an error."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)  # mkstemp makes it private
            yield file
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


async def _pages(store: StoreClient, moment: Moment) -> AsyncGenerator[pa.Table]:
    last = -1
    while True:
        page = await store.query(
            f"SELECT * FROM transitions {_where(moment)} AND {_kept(moment)} AND sequence > {last} "
            f"ORDER BY sequence LIMIT {_PAGE}"
        )
        if not page.num_rows:
            return
        yield page
        last = page["sequence"][-1].as_py()


def _where(moment: Moment) -> str:
    origin = "" if moment.origin is None else f" AND origin = '{moment.origin}'"
    return f"WHERE sequence <= {moment.as_of}{origin}"


def _kept(moment: Moment) -> str:
    return f"""episode_id NOT IN (
        SELECT episode_id FROM transitions WHERE sequence <= {moment.as_of}
        AND principal IN (SELECT principal FROM retractions WHERE sequence <= {moment.retracted_as_of})
    )"""
