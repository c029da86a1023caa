"""What the store keeps in memory so that storing an event costs the same with ten million rows as with none."""

from collections.abc import Iterable, Sequence

import duckdb
from rbloom import Bloom

_FALSE_POSITIVES = 1e-4
_SMALLEST = 2**20


class SeenIds:
    """The ids of a column, approximately: an id it does not know is certainly not in the table.

    A Bloom filter (Bloom 1970), made anew with twice the room when it is full.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, sql: str) -> None:
        """`sql` selects the ids that are stored, as one column."""
        self._connection = connection
        self._sql = sql
        self._refill()

    def possible(self, ids: Iterable[str]) -> list[str]:
        """Those of `ids` that may be stored; about one in ten thousand of them is not."""
        return [identity for identity in ids if identity in self._filter]

    def __contains__(self, identity: str) -> bool:
        return identity in self._filter

    def add(self, ids: Sequence[str]) -> None:
        """Note that `ids` are stored now. Call it after their transaction: a full filter is read from the table."""
        self._count += len(ids)
        if self._count > self._room:
            self._refill()
        else:
            self._filter.update(ids)

    def _refill(self) -> None:
        cursor = self._connection.cursor()
        try:
            self._count = cursor.execute(f"SELECT count(*) FROM ({self._sql})").fetchall()[0][0]
            self._room = max(_SMALLEST, 2 * self._count)
            self._filter = Bloom(self._room, _FALSE_POSITIVES)
            for batch in cursor.execute(self._sql).to_arrow_reader(100_000):
                self._filter.update(batch.column(0).to_pylist())
        finally:
            cursor.close()


class EpisodeStarts:
    """The first sequence of the latest episodes, so that their rows are looked for at the table's end only."""

    def __init__(self, seen: SeenIds, limit: int = 100_000) -> None:
        self._seen = seen
        self._limit = limit
        self._starts: dict[str, int] = {}

    def note(self, episode_id: str, sequence: int) -> bool:
        """Note that a row of the episode has that sequence; whether it is its first."""
        if episode_id in self._starts or episode_id in self._seen:
            return False
        self._starts[episode_id] = sequence
        return True

    def before(self, episodes: Iterable[str]) -> int:
        """A sequence that no row of `episodes` is below: 0 when one of them began too long ago."""
        return min((self._starts.get(episode, 0) for episode in episodes), default=0)

    def forget(self, episodes: Iterable[str]) -> None:
        """Take back what was noted of episodes whose rows were not stored after all."""
        for episode in episodes:
            self._starts.pop(episode, None)

    def kept(self, episodes: Sequence[str]) -> None:
        """Note that the rows of new `episodes` are stored."""
        self._seen.add(episodes)
        for _ in range(len(self._starts) - self._limit):
            del self._starts[next(iter(self._starts))]
