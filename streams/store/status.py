"""What the store holds, in numbers: for the status command, the metrics, and whoever asks what is missing."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from streams.settings import FrozenModel
from streams.store.writer import OUTBOX, Store


class BranchCounts(FrozenModel):
    """States and alternatives. A dropped state could not be restored as it was recorded."""

    states: int = Field(description="States that branch workers reported on.")
    dropped: int = Field(description="Those of them that were dropped.")
    requested: int = Field(description="Alternatives proposed.")
    executed: int = Field(description="Alternatives that ran in a sandbox.")
    timeouts: int = Field(default=0, description="Alternatives that took longer than a step may.")
    deaths: int = Field(default=0, description="Alternatives that their sandbox died of.")


class RecoveryCounts(FrozenModel):
    """What became of failed episodes. A dropped one could not be gone on from."""

    episodes: int = Field(default=0, description="Failed episodes that branch workers reported on.")
    dropped: int = Field(default=0, description="Those of them that were dropped.")
    attempts: int = Field(default=0, description="Continuations from their states.")
    sandbox_steps: int = Field(default=0, description="Steps of those, replays not counted.")
    recoveries: int = Field(default=0, description="Verified successes that came of them.")


class StoreStatus(FrozenModel):
    """Counts as of `sequence`. `positions` has, per topic and partition, the offset to be read next."""

    sequence: int
    events: dict[str, int] = Field(description="Stored events by kind.")
    duplicates: int = Field(description="Records whose event was stored before.")
    dead_letters: int = Field(description="Records that could not be read.")
    quarantined: int = Field(description="Events that were not let in.")
    flagged: int = Field(description="Episodes that are never learned from.")
    redactions: dict[str, int] = Field(description="Values replaced by placeholders, by kind.")
    gaps: int = Field(description="Offsets that the log did not give.")
    transitions: dict[str, int] = Field(description="Stored transitions by origin.")
    branches: BranchCounts
    recoveries: RecoveryCounts = RecoveryCounts()
    trusted: dict[str, int] = Field(description="Trusted episodes by split of their task.")
    outbox_pending: int = Field(description="Messages decided on and not yet published.")
    positions: dict[str, dict[int, int]]


def status(store: Store) -> StoreStatus:
    """Count. Each number is exact for a moment, and the moments differ by milliseconds."""
    states, dropped, requested, executed = _row(
        store,
        "SELECT count(*), count(*) FILTER (fidelity = 'dropped'), coalesce(sum(requested), 0)::BIGINT, "
        "coalesce(sum(executed), 0)::BIGINT FROM branches",
    )
    fates = _by(store, "fatalities", "fate")
    recovered = _row(
        store,
        "SELECT count(*), count(*) FILTER (fidelity = 'dropped'), coalesce(sum(attempts), 0)::BIGINT, "
        "coalesce(sum(sandbox_steps), 0)::BIGINT, coalesce(sum(recovered), 0)::BIGINT FROM recovery_attempts",
    )
    positions: dict[str, dict[int, int]] = {}
    for (topic, partition), offset in sorted(store.positions().items()):
        positions.setdefault(topic, {})[partition] = offset
    return StoreStatus(
        sequence=store.sequence,
        events=_by(store, "events", "kind"),
        duplicates=_row(store, "SELECT count(*) FROM duplicates")[0],
        dead_letters=_row(store, "SELECT count(*) FROM dead_letters")[0],
        quarantined=_row(store, "SELECT count(*) FROM quarantined")[0],
        flagged=_row(store, "SELECT count(DISTINCT episode_id) FROM flags")[0],
        redactions=_by(store, "redactions", "kind", "sum(count)::BIGINT"),
        gaps=_row(store, "SELECT coalesce(sum(found - expected), 0)::BIGINT FROM gaps")[0],
        transitions=_by(store, "transitions", "origin"),
        branches=BranchCounts(
            states=states,
            dropped=dropped,
            requested=requested,
            executed=executed,
            timeouts=fates.get("timeout", 0),
            deaths=fates.get("died", 0),
        ),
        recoveries=RecoveryCounts(**dict(zip(RecoveryCounts.model_fields, recovered, strict=True))),
        trusted=_by(store, "trusted", "split"),
        outbox_pending=_row(
            store,
            f"SELECT count(*) FROM {OUTBOX} "
            f"WHERE sequence >= coalesce((SELECT next FROM offsets WHERE topic = '{OUTBOX}'), 0)",
        )[0],
        positions=positions,
    )


def _by(store: Store, table: str, column: str, total: str = "count(*)") -> dict[str, int]:
    counts = store.query(f"SELECT {column}, {total} FROM {table} GROUP BY 1 ORDER BY 1")
    return dict(zip(counts.column(0).to_pylist(), counts.column(1).to_pylist(), strict=True))


def _row(store: Store, sql: str) -> Sequence[Any]:
    return [column[0].as_py() for column in store.query(sql).columns]
