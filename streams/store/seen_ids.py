"""The store's memory of known ids, so that storing an event costs the same with ten million rows as with none."""

from collections.abc import Iterable

import duckdb
from rbloom import Bloom

from streams.store.queries.writer import count_of

_FALSE_POSITIVES = 1e-4
_SMALLEST = 2**20


class SeenIds:
    """The ids of a column, approximately: an id it does not know is certainly not in the table.

    A Bloom filter (Bloom 1970), made again with twice the capacity when it is full.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, stored: str) -> None:
        """`stored` is the query of the ids that are stored, as one column."""
        self._connection = connection
        self._stored = stored
        self._noted: list[str] = []
        self._refill()

    def possible(self, ids: Iterable[str]) -> list[str]:
        """Those of `ids` that may be stored; about one in ten thousand of them is not."""
        return [identity for identity in ids if identity in self._filter]

    def __contains__(self, identity: str) -> bool:
        return identity in self._filter

    def note(self, identity: str) -> None:
        """Note that the transaction stores an id; it is not looked for before `commit`."""
        self._noted.append(identity)

    def commit(self) -> None:
        """Add what was noted. A full filter is read from the table, so the transaction must be over."""
        noted, self._noted = self._noted, []
        self._count += len(noted)
        if self._count > self._capacity:
            self._refill()
        else:
            self._filter.update(noted)

    def rollback(self) -> None:
        self._noted.clear()

    def _refill(self) -> None:
        cursor = self._connection.cursor()
        try:
            self._count = cursor.execute(count_of(self._stored)).fetchall()[0][0]
            self._capacity = max(_SMALLEST, 2 * self._count)
            self._filter = Bloom(self._capacity, _FALSE_POSITIVES)
            for batch in cursor.execute(self._stored).to_arrow_reader(100_000):
                self._filter.update(batch.column(0).to_pylist())
        finally:
            cursor.close()


class EpisodeStarts:
    """The first sequence of the latest episodes, so that their rows are looked for at the table's end only."""

    def __init__(self, seen: SeenIds, limit: int = 100_000) -> None:
        self._seen = seen
        self._limit = limit
        self._starts: dict[str, int] = {}
        self._begun: list[str] = []

    def note(self, episode_id: str, sequence: int) -> None:
        """Note that the transaction stores a row of the episode under that sequence."""
        if episode_id not in self._starts and episode_id not in self._seen:
            self._starts[episode_id] = sequence
            self._begun.append(episode_id)
            self._seen.note(episode_id)

    def before(self, episodes: Iterable[str]) -> int:
        """A sequence that no row of `episodes` is below: 0 when one of them began too long ago."""
        return min((self._starts.get(episode, 0) for episode in episodes), default=0)

    def commit(self) -> None:
        """Keep the episodes that began; the oldest ones beyond the limit are looked for everywhere again."""
        self._begun.clear()
        self._seen.commit()
        for _ in range(len(self._starts) - self._limit):
            del self._starts[next(iter(self._starts))]

    def rollback(self) -> None:
        for episode in self._begun:
            del self._starts[episode]
        self._begun.clear()
        self._seen.rollback()
