"""A record and what it says: what the ingestion pipeline hands to the writer."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ratchet_client.events import Event
from streams.branch_events import BranchResult, RecoveryResult
from streams.kafka.records import Received
from streams.kafka.refusals import REFUSED, RefusedEvent, Unreadable

RESULTS = (BranchResult, RecoveryResult)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A record and what it says. `flag` is why its episode is not learned from."""

    received: Received
    content: Event | BranchResult | RecoveryResult | Unreadable | RefusedEvent
    flag: str | None = None
    redactions: Mapping[str, int] = field(default_factory=dict)

    @property
    def refused(self) -> Unreadable | RefusedEvent | None:
        return self.content if isinstance(self.content, REFUSED) else None
