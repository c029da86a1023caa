"""The store's status in numbers: for the status command, the metrics and other clients."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from ratchet_client.settings import FrozenModel
from streams.store.queries.episodes import AGREEMENT_OF_MODELS, DROPPED_BY_REASON, EPISODES_BY_STATE
from streams.store.queries.practice import PRACTICE_BY_BUCKET, PRACTICE_COUNTS
from streams.store.queries.production import FUNNEL, PRODUCTION_BY_ADAPTER
from streams.store.queries.status import (
    BRANCH_COUNTS,
    COUNTS,
    EVENTS_BY_KIND,
    FAILURES_BY_KIND,
    FLAGGED_BY_REASON,
    NOT_TRUSTED_BY_REASON,
    RECOVERY_COUNTS,
    REDACTIONS_BY_KIND,
    TRANSITIONS_BY_ORIGIN,
    TRUSTED_BY_SPLIT,
)
from streams.trust.agreement import Agreement

if TYPE_CHECKING:
    from streams.store.writer import Store  # clients read the status, and need no database

_MOST_REASONS = 20


class BranchCounts(FrozenModel):
    """States and alternatives. A dropped state could not be restored as it was recorded."""

    states: int = Field(description="States that branch workers reported on.")
    dropped: int = Field(description="Those of them that were dropped.")
    requested: int = Field(description="Alternatives proposed.")
    executed: int = Field(description="Alternatives that ran in a sandbox.")
    timeouts: int = Field(default=0, description="Alternatives that took longer than a step may.")
    deaths: int = Field(default=0, description="Alternatives that their sandbox died of.")


class RecoveryCounts(FrozenModel):
    """Counts of failed episodes. A dropped one could not be resumed."""

    episodes: int = Field(default=0, description="Failed episodes that branch workers reported on.")
    dropped: int = Field(default=0, description="Those of them that were dropped.")
    attempts: int = Field(default=0, description="Continuations from their states.")
    sandbox_steps: int = Field(default=0, description="Steps of those, replays not counted.")
    recoveries: int = Field(default=0, description="Verified successes that came of them.")


class PracticeCounts(FrozenModel):
    """Counts of the episodes that Ratchet played itself between cycles; no other count has them."""

    episodes: int = Field(default=0, description="Practice episodes that ended, less those played with advice.")
    successes: int = Field(default=0, description="Those of them that succeeded.")
    advised: int = Field(default=0, description="Successes with a reflection or a lesson in the prompt.")
    steps: int = Field(default=0, description="The steps of all.")
    unusable: int = Field(default=0, description="Those of them that nothing may be learned from.")
    tasks: dict[str, int] = Field(
        default={},
        description="Practised tasks by how the adapter did that played them last: solved, hopeless, or in between, "
        "frontier.",
    )

    def words(self) -> str:
        """The counts as a sentence, empty where nothing was practised."""
        if not self.episodes:
            return ""
        tasks = ", ".join(f"{count} {bucket}" for bucket, count in self.tasks.items())
        return f"{self.successes} of {self.episodes} episodes succeeded; tasks: {tasks}"


class ProductionCounts(FrozenModel):
    """Judged episodes of production that one adapter answered alone."""

    episodes: int
    successes: int


class StoreStatus(FrozenModel):
    """Counts as of `sequence`. `positions` has, per topic and partition, the offset to be read next."""

    sequence: int
    events: dict[str, int] = Field(description="Stored events by kind.")
    duplicates: int = Field(description="Records whose event was stored before.")
    dead_letters: int = Field(description="Records that could not be read.")
    quarantined: int = Field(description="Events that were not let in.")
    flagged: int = Field(description="Episodes that are never learned from.")
    flags: dict[str, int] = Field(default={}, description="Those episodes by the most frequent reasons.")
    redactions: dict[str, int] = Field(description="Values replaced by placeholders, by kind.")
    gaps: int = Field(description="Offsets that the log did not give.")
    transitions: dict[str, int] = Field(description="Stored transitions by origin.")
    branches: BranchCounts
    recoveries: RecoveryCounts = RecoveryCounts()
    practice: PracticeCounts = PracticeCounts()
    trusted: dict[str, int] = Field(
        description="Episodes trusted by their outcomes, by split of their task; those of train alone are learned from."
    )
    not_trusted: dict[str, int] = Field(
        default={}, description="Other episodes with a success that are not trusted, or not yet, by reason."
    )
    episodes: dict[str, dict[str, int]] = Field(
        default={}, description="All episodes by state (as in `ratchet episodes`) and by why, without particulars."
    )
    judges: dict[str, Agreement] = Field(
        default={}, description="Of each verifier that is a model, its agreement with verified outcomes."
    )
    dropped: dict[str, int] = Field(
        default={}, description="Dropped states and failed episodes by the most frequent reasons, without particulars."
    )
    untrusted: int = Field(default=0, description="Episodes that lost trust by later events.")
    outbox_pending: int = Field(description="Messages decided on and not yet published.")
    funnel: dict[str, int] = Field(
        default={}, description="Episodes of production that ended, were judged, are trusted, and were restored."
    )
    production: dict[str, ProductionCounts] = Field(
        default={}, description="Judged episodes by the name that the adapter served under, the last ones first."
    )
    positions: dict[str, dict[int, int]]
    authenticated: bool | None = Field(
        default=None, description="Whether every event has to be signed; null where an older version does not say."
    )


def most_frequent(reasons: Mapping[str, int]) -> dict[str, int]:
    """The most frequent reasons, and the others as one: producers may flag episodes with words of their own."""
    ranked = Counter(reasons).most_common()
    others = sum(count for _, count in ranked[_MOST_REASONS:])
    return dict(ranked[:_MOST_REASONS]) | ({"other": others} if others else {})


def status(store: "Store", authenticated: bool | None = None) -> StoreStatus:
    """Count. Each number is exact for a moment, and the moments differ by milliseconds."""
    store.catch_up()
    failures = _by_name(store, FAILURES_BY_KIND)
    positions: dict[str, dict[int, int]] = {}
    for (topic, partition), offset in sorted(store.positions().items()):
        positions.setdefault(topic, {})[partition] = offset
    return StoreStatus(
        sequence=store.sequence,
        events=_by_name(store, EVENTS_BY_KIND),
        redactions=_by_name(store, REDACTIONS_BY_KIND),
        flags=_by_name(store, FLAGGED_BY_REASON),
        transitions=_by_name(store, TRANSITIONS_BY_ORIGIN),
        branches=BranchCounts(
            **_row(store, BRANCH_COUNTS), timeouts=failures.get("timeout", 0), deaths=failures.get("died", 0)
        ),
        recoveries=RecoveryCounts(**_row(store, RECOVERY_COUNTS)),
        practice=PracticeCounts(**_row(store, PRACTICE_COUNTS), tasks=_by_name(store, PRACTICE_BY_BUCKET)),
        trusted=_by_name(store, TRUSTED_BY_SPLIT),
        not_trusted=_by_name(store, NOT_TRUSTED_BY_REASON),
        episodes=_by_state(store),
        dropped=_by_name(store, DROPPED_BY_REASON),
        judges={row.pop("verifier"): Agreement(**row) for row in store.query(AGREEMENT_OF_MODELS).to_pylist()},
        funnel=_row(store, FUNNEL),
        production={
            row.pop("served"): ProductionCounts(**row) for row in store.query(PRODUCTION_BY_ADAPTER).to_pylist()
        },
        positions=positions,
        authenticated=authenticated,
        **_row(store, COUNTS),
    )


def _by_name(store: "Store", sql: str) -> dict[str, int]:
    return {row["name"]: row["total"] for row in store.query(sql).to_pylist()}


def _by_state(store: "Store") -> dict[str, dict[str, int]]:
    states: dict[str, dict[str, int]] = {}
    for row in store.query(EPISODES_BY_STATE).to_pylist():
        states.setdefault(row["state"], {})[row["name"]] = row["total"]
    return states


def _row(store: "Store", sql: str) -> dict[str, int]:
    (row,) = store.query(sql).to_pylist()
    return dict(row)
