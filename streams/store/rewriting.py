"""Writing a store's tables again without a principal's or an episode's rows, and checking that all else is there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from ratchet_client.crash_points import CrashPoint, reach
from ratchet_client.settings import FrozenModel
from streams.errors import ErasureError
from streams.store.queries.erasure import (
    GONE_EPISODES,
    gone,
    gone_trajectories,
    kept,
    note_erased,
    note_subject,
    retained,
)

_RETAINED = ("topic", "partition", "first", "last", "records")


class ErasedSubject(FrozenModel):
    """What an erasure is of: a principal, or single episodes."""

    erasure_id: str
    principal: str | None = None
    episodes: tuple[str, ...] = ()


class Retained(FrozenModel):
    """Records of a partition, between two offsets, that the log holds until its retention is over."""

    topic: str
    partition: int
    first: int
    last: int
    records: int


class StoreErased(FrozenModel):
    """The rows that were left out, by table, and the ids of what they told: episodes, and the recoveries of these."""

    rows: dict[str, int]
    episodes: tuple[str, ...]
    recoveries: tuple[str, ...]
    retained: tuple[Retained, ...]


@dataclass(frozen=True, slots=True)
class Rewriting:
    """Writes each of `tables` under its name with `prefix` and `suffix`; the tables as they are have the prefix `old`.

    What comes to be noted as erased goes into the table `erased`.
    """

    connection: duckdb.DuckDBPyConnection
    tables: Sequence[str]
    old: str
    prefix: str
    suffix: str
    erased: str

    def decide(self, subject: ErasedSubject) -> None:
        """Find the episodes that are erased. Call it before `write`."""
        self.connection.execute("SET VARIABLE principal = $principal", {"principal": subject.principal})
        self._rows(gone(self.old), {"principal": subject.principal, "episodes": list(subject.episodes)})

    def write(self, subject: ErasedSubject, sequence: int) -> StoreErased:
        """Write the tables, and note what was left out; notes of the subject itself are numbered from `sequence` on.

        Raises `ErasureError` where a new table does not hold exactly the rows that stay.
        """
        for name in self.tables:
            reach(CrashPoint.ERASURE_STEP_BEFORE)
            self.connection.execute(f"CREATE TABLE {self.new(name)} AS {kept(name, self.old)}")
        left_out = {name: self._count(f"{self.old}{name}") - self._count(self.new(name)) for name in self.tables}
        wrong = [name for name in self.tables if not self._holds(name)]
        if wrong:
            raise ErasureError(
                f"the rewritten store does not have exactly the rows that stay in {', '.join(wrong)}; the store "
                "is as it was. It is tried again when the record role starts"
            )
        self._note(subject, sequence)
        places = self._rows(retained(self.erased), {"erasure": subject.erasure_id})
        return StoreErased(
            rows={name: count for name, count in left_out.items() if count},
            episodes=tuple(episode for (episode,) in self._rows(GONE_EPISODES)),
            recoveries=tuple(recovery for (recovery,) in self._rows(gone_trajectories(self.old))),
            retained=tuple(Retained(**dict(zip(_RETAINED, place, strict=True))) for place in places),
        )

    def new(self, table: str) -> str:
        """The name under which a table is written."""
        return f"{self.prefix}{table}{self.suffix}"

    def _note(self, subject: ErasedSubject, sequence: int) -> None:
        self._rows(note_erased(self.old, self.erased), {"erasure": subject.erasure_id})
        named = [{"principal": None, "episode": episode} for episode in subject.episodes]
        if subject.principal is not None:
            named.append({"principal": subject.principal, "episode": None})
        for number, name in enumerate(named, sequence):
            self._rows(note_subject(self.erased), {"sequence": number, "erasure": subject.erasure_id, **name})

    def _holds(self, table: str) -> bool:
        contents = [
            self._rows(f"SELECT count(*), bit_xor(hash(each)), sum(hash(each)) FROM ({rows}) AS each")
            for rows in (kept(table, self.old), f"FROM {self.new(table)}")
        ]
        return contents[0] == contents[1]

    def _count(self, table: str) -> int:
        return int(self._rows(f"SELECT count(*) FROM {table}")[0][0])

    def _rows(self, sql: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql, parameters).fetchall()
