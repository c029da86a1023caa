"""The store's memory of its tables, in step with the transactions that change them."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from ratchet_client.events import Event, OutcomeEvent, StepEvent
from streams.branch_events import BranchResult, RecoveryResult
from streams.store.database import Database
from streams.store.erased import Erased
from streams.store.positions import SEQUENCE, Positions
from streams.store.queries.erasure import ERASED
from streams.store.queries.writer import (
    JUDGED_EPISODES,
    NEXT_SEQUENCE,
    OFFSETS,
    RECENTLY_TRUSTED,
    REMEMBERED_OF_RANGE,
    STORED_EPISODES,
    STORED_IDS,
)
from streams.store.seen_ids import EpisodeStarts, SeenIds
from streams.trust.practice import is_practice
from streams.trust.quota import WINDOW, Admitted, Quota
from streams.trust.settings import QuotaSettings

# Rows of other processes that are read at once.
_ROWS_AT_ONCE = 100_000


class Memory:
    """Read from the tables when the store is opened; after that its parts are told what a transaction does.

    What they were told counts at once, for the transaction itself. `commit` keeps it and `rollback` takes it back, so
    that memory is what the tables are, whatever becomes of a transaction. What other processes did is read by
    `catch_up`, the rows since the last look alone.
    """

    def __init__(self, database: Database, quota: QuotaSettings, clock: Callable[[], datetime]) -> None:
        self._database = database
        stored = self._offsets()
        self.sequence = stored.pop(SEQUENCE) if database.shared else database.rows(NEXT_SEQUENCE)[0]["sequence"]
        self.positions = Positions(stored)
        self.ids = SeenIds(database.connection, STORED_IDS)
        self.starts = EpisodeStarts(SeenIds(database.connection, STORED_EPISODES))
        # Those with an outcome: more steps of them may change what was decided.
        self.judged = SeenIds(database.connection, JUDGED_EPISODES)
        self.erased = Erased(database.rows(ERASED))
        # What another process commits while this is read is caught up with later, and must not count twice.
        recent = database.rows(RECENTLY_TRUSTED, {"since": clock() - WINDOW, "before": self.sequence})
        self.quota = Quota(quota, map(_admitted, recent))

    def catch_up(self) -> None:
        """Take in what other processes committed since. Call it before anything of a transaction.

        The database must be one that others write to.
        """
        stored = self._offsets()
        following = stored.pop(SEQUENCE)
        self.positions.reread(stored)
        for first in range(self.sequence, following, _ROWS_AT_ONCE):
            last = min(first + _ROWS_AT_ONCE, following) - 1
            for row in self._database.rows(REMEMBERED_OF_RANGE, {"first": first, "last": last}):
                self._note_row(row)
            self.commit(last + 1)

    def _offsets(self) -> dict[tuple[str, int], int]:
        return {(row["topic"], row["partition"]): row["next"] for row in self._database.rows(OFFSETS)}

    def _note_row(self, row: Mapping[str, Any]) -> None:
        """Note a row that another process committed."""
        kind, episode = row["kind"], row["episode_id"]
        if kind == "erased":
            # What it noted has the sequences of what was there before.
            self.erased = Erased(self._database.rows(ERASED))
            return
        if row["event_id"] is not None:
            self.ids.note(row["event_id"])
        if kind == "trusted":
            self.quota.admit(_admitted(row))
        elif episode is not None:
            self.starts.note(episode, row["sequence"])
            if kind == "outcome" and episode not in self.judged:
                self.judged.note(episode)

    def note(self, content: Event | BranchResult | RecoveryResult, sequence: int) -> None:
        """Note that the transaction stores an event or a result, whose first row has that sequence."""
        self.ids.note(content.event_id)
        if isinstance(content, StepEvent | OutcomeEvent):
            self.starts.note(content.episode_id, sequence)
        if isinstance(content, OutcomeEvent) and not is_practice(content) and content.episode_id not in self.judged:
            self.judged.note(content.episode_id)

    def commit(self, sequence: int) -> None:
        """Keep what the transaction did: call it after the commit. `sequence` is what the next row gets."""
        self.sequence = sequence
        for part in (self.positions, self.quota, self.ids, self.starts, self.judged, self.erased):
            part.commit()

    def rollback(self) -> None:
        """Forget what the transaction did."""
        for part in (self.positions, self.quota, self.ids, self.starts, self.judged, self.erased):
            part.rollback()


def _admitted(row: Mapping[str, Any]) -> Admitted:
    return Admitted(row["principal"], row["likeness"], row["trusted_at"])
