"""The store's memory of what was erased: whatever comes of it again is not stored."""

from collections.abc import Iterable, Mapping
from typing import Any

from ratchet_client.events import OutcomeEvent, StepEvent
from streams.branch_events import BranchResult, RecoveryResult


class Erased:
    """Principals and episodes that were erased, in step with the transactions that add to them."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """`rows` are those of the table `erased`."""
        found = [(row["principal"], row["episode_id"]) for row in rows]
        self._principals = {principal for principal, _ in found if principal is not None}
        self._episodes = {episode for _, episode in found if episode is not None}
        self._noted: set[str] = set()

    def covers(self, content: StepEvent | OutcomeEvent | BranchResult | RecoveryResult) -> bool:
        """Return whether nothing of it may be stored. An erased principal's first step erases its episode."""
        if content.episode_id in self._episodes or content.episode_id in self._noted:
            return True
        if isinstance(content, StepEvent) and content.principal in self._principals:
            self._noted.add(content.episode_id)
            return True
        return False

    def commit(self) -> None:
        self._episodes |= self._noted
        self._noted.clear()

    def rollback(self) -> None:
        self._noted.clear()
