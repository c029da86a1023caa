"""The transitions as of a sequence: listed and exported through the record role's query API.

Rows are only ever appended, so what is given as of a sequence never changes, but for this: episodes of principals that
revoked consent are left out, whenever they did. `ratchet transitions` and `ratchet export` call it.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from streams.errors import StoreError
from streams.runtime.files import replacing
from streams.store.client import StoreClient
from streams.store.database import Parameter
from streams.store.queries.export import COUNT_OF_TRANSITIONS, NEWEST_TRANSITIONS, TRANSITIONS_AFTER
from streams.store.queries.retractions import LATEST_RETRACTION
from streams.store.tables import TABLES

_PAGE = 5_000

Watch = Callable[[int, int], None]


class Origin(StrEnum):
    """The origin of a transition."""

    PRODUCTION = "production"
    BRANCH = "branch"
    PRACTICE = "practice"


@dataclass(frozen=True, slots=True)
class Moment:
    """Transitions up to `as_of`, of one origin or all, but for retractions up to `retracted_as_of`.

    `rows` is how many are shown, `revoked` how many are not, because their principal revoked consent.
    """

    as_of: int
    retracted_as_of: int
    origin: Origin | None
    rows: int
    revoked: int

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The moment as the queries take it."""
        return {"as_of": self.as_of, "retracted_as_of": self.retracted_as_of, "origin": self.origin}


async def look_back(store: StoreClient, as_of: int | None, origin: Origin | None) -> Moment:
    """The moment of a sequence, by default the latest.

    Raises `StoreError` when the store does not answer, or has not come to that sequence: more would be added to it.
    """
    latest = (await store.status()).sequence
    if as_of is not None and as_of > latest:
        raise StoreError(f"the store has come to sequence {latest}, and not to {as_of}: name an earlier one")
    retracted_as_of = (await store.query(LATEST_RETRACTION))["sequence"][0].as_py()
    moment = Moment(latest if as_of is None else as_of, retracted_as_of, origin, 0, 0)
    (counts,) = (await store.query(COUNT_OF_TRANSITIONS, moment.parameters)).to_pylist()
    return replace(moment, **counts)


async def newest(store: StoreClient, moment: Moment, limit: int) -> pa.Table:
    """The newest `limit` transitions of a moment, oldest of them first; the columns are the table's."""
    return await store.query(NEWEST_TRANSITIONS, moment.parameters | {"limit": limit})


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
        with replacing(to) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
            async with aclosing(_pages(store, moment)) as pages:
                async for page in pages:
                    writer.write_table(page.cast(schema))
                    written += page.num_rows
                    watch(written, moment.rows)
    except OSError as error:
        raise StoreError(f"the export {to} could not be written: {error}") from error
    return written


async def _pages(store: StoreClient, moment: Moment) -> AsyncGenerator[pa.Table]:
    last = -1
    while True:
        page = await store.query(TRANSITIONS_AFTER, moment.parameters | {"after": last, "limit": _PAGE})
        if not page.num_rows:
            return
        yield page
        last = page["sequence"][-1].as_py()
