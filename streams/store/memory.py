"""The store's memory of its tables, in step with the transactions that change them."""

from collections.abc import Callable
from datetime import datetime

from ratchet_client.events import Event, OutcomeEvent, StepEvent
from streams.branch_events import BranchResult, RecoveryResult
from streams.store.database import Database
from streams.store.erased import Erased
from streams.store.positions import Positions
from streams.store.queries.erasure import ERASED
from streams.store.queries.writer import (
    JUDGED_EPISODES,
    NEXT_SEQUENCE,
    OFFSETS,
    RECENTLY_TRUSTED,
    STORED_EPISODES,
    STORED_IDS,
)
from streams.store.seen_ids import EpisodeStarts, SeenIds
from streams.trust.practice import is_practice
from streams.trust.quota import WINDOW, Admitted, Quota
from streams.trust.settings import QuotaSettings


class Memory:
    """Read from the tables when the store is opened; after that its parts are told what a transaction does.

    What they were told counts at once, for the transaction itself. `commit` keeps it and `rollback` takes it back, so
    that memory is what the tables are, whatever becomes of a transaction.
    """

    def __init__(self, database: Database, quota: QuotaSettings, clock: Callable[[], datetime]) -> None:
        self.sequence: int = database.rows(NEXT_SEQUENCE)[0]["sequence"]
        self.positions = Positions(
            {(row["topic"], row["partition"]): row["next"] for row in database.rows(OFFSETS)},
        )
        self.ids = SeenIds(database.connection, STORED_IDS)
        self.starts = EpisodeStarts(SeenIds(database.connection, STORED_EPISODES))
        # Those with an outcome: more steps of them may change what was decided.
        self.judged = SeenIds(database.connection, JUDGED_EPISODES)
        self.erased = Erased(database.rows(ERASED))
        recent = database.rows(RECENTLY_TRUSTED, {"since": clock() - WINDOW})
        self.quota = Quota(quota, (Admitted(row["principal"], row["likeness"], row["trusted_at"]) for row in recent))

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
