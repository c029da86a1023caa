"""What new records say becomes rows of the batch: the store's writer calls it within a transaction.

Of each event the first record counts, others are duplicates; what was erased is not stored again.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TypeGuard

from ratchet_client.events import Event, OutcomeEvent, RetractionEvent, StepEvent
from streams.branch_events import BranchResult, RecoveryResult
from streams.kafka.refusals import REFUSED
from streams.store.database import Database
from streams.store.decoded import RESULTS, Decoded
from streams.store.memory import Memory
from streams.store.queries.writer import PRINCIPALS_OF_WANTED, WANTED_STORED_IDS
from streams.store.rows import Batch
from streams.trust.practice import is_practice


class NewRecords:
    """Adds records to a batch, with the help of what the store remembers and has."""

    def __init__(self, database: Database, memory: Memory) -> None:
        self._database = database
        self._memory = memory

    def take(self, batch: Batch, records: Sequence[Decoded]) -> tuple[list[str], list[OutcomeEvent]]:
        """Add what new records say to the batch.

        Returns the episodes that may have come to their end, and the outcomes of practice.
        """
        known = self._known_ids(records)
        principals = self._principals(records)
        redactions: Counter[str] = Counter()
        ended: dict[str, None] = {}
        practised: list[OutcomeEvent] = []
        for record in records:
            content = record.content
            if isinstance(content, REFUSED):
                batch.refused(record.received, content)
            elif content.event_id in known:
                batch.duplicate(record.received, content.event_id)
            elif not isinstance(content, RetractionEvent) and self._memory.erased.covers(content):
                known.add(content.event_id)
                self._memory.ids.note(content.event_id)
                batch.erased(record.received, content.event_id, content.episode_id)
            else:
                known.add(content.event_id)
                self._memory.note(content, batch.sequence)
                batch.content(record, content, principals)
                if not isinstance(content, RESULTS) and is_practice(content):
                    practised += [content] if isinstance(content, OutcomeEvent) else []
                    continue
                if record.redactions:
                    redactions.update(record.redactions)
                if self._may_end(content):
                    ended[content.episode_id] = None
        for kind, count in redactions.items():
            batch.add("redactions", kind=kind, count=count)
        return list(ended), practised

    def _may_end(self, content: Event | BranchResult | RecoveryResult) -> TypeGuard[StepEvent | OutcomeEvent]:
        """Return whether the event may decide on its episode. Steps and outcomes may be of different producers."""
        if isinstance(content, StepEvent):
            return content.done or content.episode_id in self._memory.judged
        return isinstance(content, OutcomeEvent)

    def _known_ids(self, records: Sequence[Decoded]) -> set[str]:
        """The ids of records that are stored already."""
        ids = self._memory.ids.possible(
            record.content.event_id for record in records if not isinstance(record.content, REFUSED)
        )
        if not ids:
            return set()
        return {row["event_id"] for row in self._database.rows_of(ids, WANTED_STORED_IDS)}

    def _principals(self, records: Sequence[Decoded]) -> dict[str, str]:
        """The principals of the episodes that results are about."""
        episodes = {record.content.episode_id for record in records if isinstance(record.content, RESULTS)}
        if not episodes:
            return {}
        rows = self._database.rows_of(
            list(episodes), PRINCIPALS_OF_WANTED, {"start": self._memory.starts.before(episodes)}
        )
        return {row["episode_id"]: row["principal"] for row in rows}
