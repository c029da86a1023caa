"""The one DuckDB file, and its only writer: the record role.

One transaction takes a batch of records and everything that follows from it, offsets included, so that an at-least-once
log is stored exactly once, and a crash between the store and the broker loses nothing.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

import pyarrow as pa
import structlog

from streams.events import BranchResult, OutcomeEvent, RecoveryResult, RetractionEvent, StepEvent
from streams.kafka.records import Outgoing
from streams.kafka.refusals import REFUSED
from streams.kafka.settings import KafkaSettings
from streams.store.database import Database
from streams.store.decoded import RESULTS, Decoded
from streams.store.judge import Judge
from streams.store.rows import Batch, Watermark
from streams.store.seen_ids import EpisodeStarts, SeenIds
from streams.store.settings import StoreSettings
from streams.store.tables import TABLES
from streams.trust.holdout import HoldoutSettings
from streams.trust.quota import WINDOW, Admitted, Quota, QuotaSettings
from streams.trust.rules import WITHDRAWN_EPISODES

log = structlog.get_logger()

OUTBOX = "outbox"
# The ids of everything that is stored once.
_KNOWN_SQL = """
    SELECT event_id FROM events
    UNION ALL SELECT result_id FROM branches
    UNION ALL SELECT result_id FROM recovery_attempts
"""
# An episode that failed first may be trusted later: the newest request counts.
_UNANSWERED_SQL = f"""
    SELECT DISTINCT ON (key) topic, key, value FROM {OUTBOX}
    WHERE topic = ? AND key NOT IN (SELECT encode(episode_id) FROM branches)
      AND key NOT IN (SELECT encode(episode_id) FROM recovery_attempts)
      AND key NOT IN (SELECT encode(episode_id) FROM ({WITHDRAWN_EPISODES}))
    ORDER BY key, sequence DESC
"""


def utc_now() -> datetime:
    """UTC without a zone, as DuckDB keeps it."""
    return datetime.now(UTC).replace(tzinfo=None)


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of a batch. `replayed` records were below the watermark; `trusted` counts episodes."""

    stored: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    quarantined: int = 0
    replayed: int = 0
    trusted: int = 0


@dataclass(slots=True)
class _Taken:
    """What a batch adds to the store's memory when its transaction is committed."""

    ids: dict[str, None] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)
    ended: dict[str, None] = field(default_factory=dict)
    trusted: int = 0


@dataclass(frozen=True, slots=True)
class Pending:
    """A message that was decided on and is not yet marked as published."""

    sequence: int
    message: Outgoing


class Store:
    """Append, query, and hand out the outbox. Safe to call from several threads; writers take turns."""

    def __init__(
        self,
        database: Database,
        holdout: HoldoutSettings,
        kafka: KafkaSettings,
        quota: QuotaSettings,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._kafka = kafka
        self._lock = threading.Lock()
        numbered = [name for name, schema in TABLES.items() if "sequence" in schema.names]
        ends = " UNION ALL ".join(f"SELECT max(sequence) AS last FROM {name}" for name in numbered)
        self._sequence: int = self._database.rows(f"SELECT coalesce(max(last), 0) + 1 FROM ({ends})")[0][0]
        self._positions = {(row[0], row[1]): row[2] for row in self._database.rows("SELECT * FROM offsets")}
        self._seen: set[tuple[str, int]] = set()
        self._ids = SeenIds(database.connection, _KNOWN_SQL)
        self._starts = EpisodeStarts(
            SeenIds(database.connection, "SELECT DISTINCT episode_id FROM events WHERE kind <> 'retraction'")
        )
        recent = "SELECT principal, likeness, trusted_at FROM trusted WHERE trusted_at > ? ORDER BY sequence"
        self._quota = Quota(quota, (Admitted(*row) for row in self._database.rows(recent, [clock() - WINDOW])))
        self._judge = Judge(database, self._starts, self._quota, holdout, kafka.branches_topic, clock)

    @classmethod
    def open(
        cls,
        settings: StoreSettings,
        holdout: HoldoutSettings,
        kafka: KafkaSettings,
        quota: QuotaSettings | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> Self:
        """Open or create the file; `clock` gives UTC without a zone.

        Raises `StoreError` when it is damaged, another process has it open, or another version of Ratchet made it.
        """
        database = Database.open(settings.path, settings.memory)
        return cls(database, holdout, kafka, quota or QuotaSettings(), clock)

    def close(self) -> None:
        """Write everything into the file proper and close it."""
        with self._lock:
            self._database.close()

    def append(self, records: Sequence[Decoded]) -> Appended:
        """Store a batch and all that follows from it in one transaction.

        Records below the watermark are dropped, events stored before are counted as duplicates, refused records are
        noted, and newly trusted episodes become branch requests, which wait in the outbox.

        Raises `StoreError`, and stores nothing, when DuckDB fails or a partition that was being read skips offsets.
        Reading again from `positions` is the remedy: a gap that is still there is the log's own and is recorded.
        """
        with self._lock:
            batch = Batch(self._sequence)
            watermark = Watermark(dict(self._positions), set(self._seen))
            taken = _Taken()
            try:
                with self._database.transaction(f"store {len(records)} records"):
                    fresh = [record for record in records if watermark.passes(record.received, batch)]
                    self._take(batch, fresh, taken)
                    duplicates, dead_letters = len(batch.rows["duplicates"]), len(batch.rows["dead_letters"])
                    quarantined = len(batch.rows["quarantined"])
                    self._insert(batch)
                    taken.trusted = self._judge.judge(batch, list(taken.ended))
                    self._insert(batch)
                    self._write_positions(watermark.next)
            except BaseException:
                self._starts.forget(taken.begun)
                self._quota.withdraw(taken.trusted)
                raise
            self._sequence, self._positions, self._seen = batch.sequence, watermark.next, watermark.seen
            self._ids.add(list(taken.ids))
            self._starts.kept(taken.begun)
        return Appended(
            stored=len(taken.ids),
            duplicates=duplicates,
            dead_letters=dead_letters,
            quarantined=quarantined,
            replayed=len(records) - len(fresh),
            trusted=taken.trusted,
        )

    def is_new(self, topic: str, partition: int, offset: int) -> bool:
        """Whether the record at that position is not below the watermark."""
        watermark: int = self._positions.get((topic, partition), 0)
        return offset >= watermark

    @property
    def sequence(self) -> int:
        """The sequence of the latest row."""
        return self._sequence - 1

    def positions(self) -> Mapping[tuple[str, int], int]:
        """Per (topic, partition), the offset to read next."""
        return {partition: offset for partition, offset in self._positions.items() if partition[0] != OUTBOX}

    def adopt_log(
        self, cluster_id: str, ends: Mapping[tuple[str, int], int], read: Mapping[tuple[str, int], int] | None = None
    ) -> None:
        """Say which log is about to be read, and where its partitions end. Call it whenever reading begins.

        A log other than the last one, or a partition that ends before what was read of it, is read from its beginning:
        its offsets mean something else. What is already stored is recognised by its id. Branch requests that nobody
        answered went down with the old log, and are published again.

        `read` is `positions` from before `ends` was asked for, if records may have been stored meanwhile.
        """
        read = self.positions() if read is None else read
        with self._lock:
            last = self._database.rows("SELECT cluster_id FROM logs ORDER BY sequence DESC LIMIT 1")
            anew = bool(last) and last[0][0] != cluster_id
            stale = [partition for partition, offset in read.items() if anew or offset > ends.get(partition, 0)]
            if not stale and last and not anew:
                return
            if stale:
                log.warning("reading the log from its beginning", cluster=cluster_id, partitions=len(stale))
            batch = Batch(self._sequence)
            batch.add("logs", cluster_id)
            if anew:
                for topic, key, value in self._database.rows(_UNANSWERED_SQL, [self._kafka.branches_topic]):
                    batch.add("outbox", topic, key, value)
            positions = self._positions | dict.fromkeys(stale, 0)
            with self._database.transaction("adopt the log"):
                self._insert(batch)
                self._write_positions(positions)
            self._sequence, self._positions = batch.sequence, positions

    def pending(self, limit: int) -> list[Pending]:
        """The oldest messages of the outbox that are not marked as published."""
        with self._lock:
            rows = self._database.rows(
                f"SELECT sequence, topic, key, value FROM {OUTBOX} WHERE sequence >= ? ORDER BY sequence LIMIT ?",
                [self._positions.get((OUTBOX, 0), 0), limit],
            )
        return [Pending(sequence, Outgoing(topic, key, value)) for sequence, topic, key, value in rows]

    def published(self, up_to: int) -> None:
        """Mark the outbox as published up to and with the message of sequence `up_to`."""
        with self._lock:
            positions = self._positions | {(OUTBOX, 0): up_to + 1}
            with self._database.transaction("mark the outbox as published"):
                self._write_positions(positions)
            self._positions = positions

    def query(self, sql: str) -> pa.Table:
        """The rows of one SELECT. Raises `StoreError` for anything else, and when DuckDB refuses it."""
        return self._database.query(sql)

    def _take(self, batch: Batch, fresh: Sequence[Decoded], taken: "_Taken") -> None:
        """Sort the records into the batch, and note what became of them."""
        known = self._known_ids(fresh)
        principals = self._principals(fresh)
        redactions: Counter[str] = Counter()
        for record in fresh:
            content = record.content
            if isinstance(content, REFUSED):
                batch.refused(record.received, content)
                continue
            if content.event_id in known or content.event_id in taken.ids:
                batch.duplicate(record.received, content.event_id)
                continue
            taken.ids[content.event_id] = None
            if record.redactions:
                redactions.update(record.redactions)
            if isinstance(content, BranchResult):
                batch.branch_result(content, principals)
                continue
            if isinstance(content, RecoveryResult):
                batch.recovery_result(content, principals)
                continue
            if not isinstance(content, RetractionEvent) and self._starts.note(content.episode_id, batch.sequence):
                taken.begun.append(content.episode_id)
            batch.event(record, content)
            # Whichever comes last: steps and verdicts may come from different producers.
            if isinstance(content, OutcomeEvent) or (isinstance(content, StepEvent) and content.done):
                taken.ended[content.episode_id] = None
        for kind, count in redactions.items():
            batch.add("redactions", kind, count)

    def _known_ids(self, records: Sequence[Decoded]) -> set[str]:
        ids = self._ids.possible(
            record.content.event_id for record in records if not isinstance(record.content, REFUSED)
        )
        if not ids:
            return set()
        rows = self._database.matching(f"SELECT event_id FROM ({_KNOWN_SQL}) WHERE event_id IN (FROM wanted)", ids)
        return {row[0] for row in rows}

    def _principals(self, records: Sequence[Decoded]) -> dict[str, str]:
        episodes = {record.content.episode_id for record in records if isinstance(record.content, RESULTS)}
        if not episodes:
            return {}
        return dict(
            self._database.matching(
                "SELECT episode_id, any_value(principal) FROM transitions WHERE sequence >= ? "
                "AND origin = 'production' AND episode_id IN (FROM wanted) GROUP BY episode_id",
                list(episodes),
                [self._starts.before(episodes)],
            )
        )

    def _insert(self, batch: Batch) -> None:
        self._database.insert(batch.rows)
        batch.rows.clear()

    def _write_positions(self, positions: Mapping[tuple[str, int], int]) -> None:
        for (topic, partition), offset in positions.items():
            before = self._positions.get((topic, partition))
            if before is None:
                self._database.connection.execute("INSERT INTO offsets VALUES (?, ?, ?)", [topic, partition, offset])
            elif before != offset:
                self._database.connection.execute(
                    "UPDATE offsets SET next = ? WHERE topic = ? AND partition = ?", [offset, topic, partition]
                )
