"""The store and its writer, the record role: the only one of a DuckDB file, one of several of a lake.

One transaction takes a batch of records and everything that follows from it, offsets included, so that an at-least-once
log is stored exactly once, and a crash between the store and the broker loses nothing.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

import duckdb
import pyarrow as pa
import structlog

from streams.branch_events import BranchRequest
from streams.errors import StoreError
from streams.kafka.records import Outgoing
from streams.kafka.settings import KafkaSettings
from streams.store.backends import open_database
from streams.store.database import Database, Parameters, RunningQuery
from streams.store.decoded import Decoded
from streams.store.judge import Judge
from streams.store.memory import Memory
from streams.store.metrics import write_seconds
from streams.store.new_records import NewRecords
from streams.store.positions import OUTBOX, SEQUENCE, Partition
from streams.store.practice import PracticeJudge
from streams.store.queries.writer import (
    ADD_OFFSET,
    DECIDED_TO_JUDGE_AGAIN,
    ENVIRONMENTS_WITHOUT_SANDBOX,
    LAST_CLUSTER,
    OUTBOX_FROM,
    REQUESTS_WITHOUT_SANDBOX,
    SET_OFFSET,
    UNANSWERED_REQUESTS,
)
from streams.store.rows import Batch
from streams.store.settings import StoreSettings
from streams.trust.holdout import HoldoutSettings
from streams.trust.rules import BY_SETTINGS, MODEL_JUDGE, TrustSettings, asked_again
from streams.trust.settings import QuotaSettings

log = structlog.get_logger()

_JUDGED_AT_ONCE = 1000
_ASKED_AT_ONCE = 1000


def utc_now() -> datetime:
    """UTC without a zone, as DuckDB keeps it."""
    return datetime.now(UTC).replace(tzinfo=None)


@dataclass(frozen=True, slots=True)
class Appended:
    """The result of a batch. `replayed` records were below the watermark; `trusted` counts episodes."""

    stored: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    quarantined: int = 0
    replayed: int = 0
    trusted: int = 0


@dataclass(frozen=True, slots=True)
class OutboxEntry:
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
        trust: TrustSettings = TrustSettings(),  # noqa: B008 - frozen
    ) -> None:
        self._database = database
        self._kafka = kafka
        self.write_seconds = write_seconds()
        self._lock = threading.Lock()
        self._memory = Memory(database, quota, clock)
        self._judge = Judge(database, self._memory, holdout, trust, kafka.branches_topic, clock)
        self._records = NewRecords(database, self._memory)
        self._practice = PracticeJudge(database, self._memory, holdout)
        self._judge_again(trust)

    @classmethod
    def open(
        cls,
        settings: StoreSettings,
        holdout: HoldoutSettings,
        kafka: KafkaSettings,
        quota: QuotaSettings | None = None,
        clock: Callable[[], datetime] = utc_now,
        trust: TrustSettings = TrustSettings(),  # noqa: B008 - frozen
    ) -> Self:
        """Open or create the file or the lake; `clock` gives UTC without a zone.

        Raises `StoreError` when it is damaged, another process has the file open, the lake cannot be reached, or
        another version of Ratchet made it; `ConfigurationError` when an extension for the lake is missing.
        """
        database = open_database(settings)
        try:
            return cls(database, holdout, kafka, quota or QuotaSettings(), clock, trust)
        except duckdb.Error as error:
            database.connection.close()
            place = settings.lake.data if settings.is_lake else settings.path
            raise StoreError(f"the store in {place} cannot be read: {error}; restore a backup of it") from error

    def close(self) -> None:
        """Write everything into the file proper and close it."""
        with self._lock:
            self._database.close()

    def append(self, records: Sequence[Decoded]) -> Appended:
        """Store a batch and all that follows from it in one transaction.

        Records below the watermark are dropped, events stored before are counted as duplicates, refused records are
        noted, and newly trusted episodes become branch requests, which wait in the outbox. An episode that was decided
        on is judged again when more of it comes, and may lose trust.

        Raises `StoreError`, and stores nothing, when DuckDB fails or a partition that was being read skips offsets.
        Reading again from `positions` is the remedy: a gap that is still there is the log's own and is recorded.
        """
        with (
            self.write_seconds.time(),
            self._lock,
            self._transaction(f"store {len(records)} records") as batch,
        ):
            fresh = [record for record in records if self._memory.positions.passes(record.received, batch)]
            ended, practised = self._records.take(batch, fresh)
            self._database.insert(batch.take_rows())
            self._judge.judge(batch, ended)
            self._practice.judge(batch, practised)
        added = batch.added
        return Appended(
            stored=added["events"] + added["branches"] + added["recovery_attempts"],
            duplicates=added["duplicates"],
            dead_letters=added["dead_letters"],
            quarantined=added["quarantined"],
            replayed=len(records) - len(fresh),
            trusted=added["trusted"],
        )

    def is_new(self, topic: str, partition: int, offset: int) -> bool:
        """Return whether the record at that position is not below the watermark."""
        return offset >= self._memory.positions.stored.get((topic, partition), 0)

    def catch_up(self) -> None:
        """Bring `sequence` and `positions` up to date with what other processes committed, where others write too.

        Transactions do it by themselves. Raises `StoreError` when the lake cannot be reached.
        """
        if self._database.shared:
            with self._lock:
                self._memory.catch_up()

    @property
    def sequence(self) -> int:
        """The sequence of the latest row."""
        return self._memory.sequence - 1

    def positions(self) -> Mapping[Partition, int]:
        """Per (topic, partition), the offset to read next."""
        stored = self._memory.positions.stored
        return {partition: offset for partition, offset in stored.items() if partition != OUTBOX}

    def adopt_log(
        self, cluster_id: str, ends: Mapping[Partition, int], read: Mapping[Partition, int] | None = None
    ) -> None:
        """Say which log is about to be read, and where its partitions end. Call it whenever reading begins.

        A log other than the last one, or a partition that ends before what was read of it, is read from its beginning:
        its offsets mean something else. What is already stored is recognised by its id. Branch requests that no worker
        answered went down with the old log, and are published again.

        `read` is `positions` from before `ends` was asked for, if records may have been stored meanwhile.
        """
        read = self.positions() if read is None else read
        with self._lock:
            if self._to_adopt(cluster_id, ends, read) is None:
                return
            with self._transaction("adopt the log") as batch:
                # Another process may have adopted it meanwhile.
                found = self._to_adopt(cluster_id, ends, read)
                if found is None:
                    return
                replaced, stale = found
                if stale:
                    log.warning("reading the log from its beginning", cluster=cluster_id, partitions=len(stale))
                batch.add("logs", cluster_id=cluster_id)
                if replaced:
                    for request in self._database.rows(UNANSWERED_REQUESTS, {"topic": self._kafka.branches_topic}):
                        batch.outgoing(Outgoing(**request))
                self._memory.positions.restart(stale)

    def _to_adopt(
        self, cluster_id: str, ends: Mapping[Partition, int], read: Mapping[Partition, int]
    ) -> tuple[bool, list[Partition]] | None:
        """Whether the log replaces another one, and its partitions to read from their beginning; None if all is known.

        The lock must be held.
        """
        last = self._database.rows(LAST_CLUSTER)
        replaced = bool(last) and last[0]["cluster_id"] != cluster_id
        stored = self._memory.positions.stored
        stale = [
            partition
            for partition, offset in read.items()
            if replaced or min(offset, stored.get(partition, 0)) > ends.get(partition, 0)
        ]
        return (replaced, stale) if stale or replaced or not last else None

    def ask_again(self, has_sandbox: Callable[[str], bool]) -> int:
        """Ask again for the episodes that no sandbox could be opened for, where an environment has one by now.

        Returns how many. Call it once in a process, after `adopt_log`. `has_sandbox` is asked for the environments of
        such episodes alone. They are taken a thousand at a time, so that neither memory nor a transaction grows with
        their number, and other writes come in between.
        """
        topic: Parameters = {"topic": self._kafka.branches_topic}
        asked = 0
        with self._lock:
            lacking = [row["environment"] for row in self._database.rows(ENVIRONMENTS_WITHOUT_SANDBOX, topic)]
        usable = [name for name in lacking if has_sandbox(name)]
        while usable and (more := self._ask_some_again({**topic, "environments": usable, "limit": _ASKED_AT_ONCE})):
            asked += more
        if asked:
            log.info("asked again for episodes that had no sandbox", episodes=asked, environments=usable)
        return asked

    def _ask_some_again(self, which: Parameters) -> int:
        """Ask again for some of the episodes; what was asked again is not among them the next time."""
        with self._lock, self._transaction("ask again for branches") as batch:
            rows = self._database.rows(REQUESTS_WITHOUT_SANDBOX, which)
            for row in rows:
                request = asked_again(BranchRequest.model_validate_json(row["value"]))
                batch.outgoing(Outgoing(self._kafka.branches_topic, request.episode_id.encode(), request.to_json()))
        return len(rows)

    def pending(self, limit: int) -> list[OutboxEntry]:
        """The oldest messages of the outbox that are not marked as published."""
        self.catch_up()
        with self._lock:
            start = self._memory.positions.stored.get(OUTBOX, 0)
            rows = self._database.rows(OUTBOX_FROM, {"start": start, "limit": limit})
        return [OutboxEntry(row.pop("sequence"), Outgoing(**row)) for row in rows]

    def draining(self) -> AbstractContextManager[None]:
        """Hold it from `pending` to `published`: where several processes write, one at a time publishes.

        Raises `StoreError` when that one takes too long.
        """
        return self._database.draining()

    def published(self, up_to: int) -> None:
        """Mark the outbox as published up to and with the message of sequence `up_to`."""
        with self._lock, self._transaction("mark the outbox as published"):
            self._memory.positions.published(up_to)

    def tidy(self, keep_days: float) -> int:
        """Merge small files of a lake, and forget snapshots older than `keep_days`; how many files there are less.

        Raises `StoreError`; what is stored stays as it was.
        """
        with self._lock:
            return self._database.tidy(keep_days)

    def query(self, sql: str, parameters: Parameters | None = None) -> pa.Table:
        """The rows of one SELECT, with a value for each `$name` in it.

        Raises `StoreError` for any other statement, for a parameter too many or too few, and when DuckDB refuses it.
        """
        return self._database.query(sql, parameters)

    def begin_query(self) -> RunningQuery:
        """A query that its caller starts, reads and closes; the writer and other queries go on beside it."""
        return self._database.begin_query()

    @contextmanager
    def _transaction(self, purpose: str) -> Iterator[Batch]:
        """Keep the rows of the batch, the positions and the memory together, or none of them. The lock must be held.

        Raises `StoreError`, which names the purpose, when DuckDB fails.
        """
        try:
            with self._database.transaction(purpose):
                if self._database.shared:
                    self._memory.catch_up()
                batch = Batch(self._memory.sequence)
                yield batch
                self._database.insert(batch.take_rows())
                self._write_positions(batch)
        except BaseException:
            self._memory.rollback()
            raise
        self._memory.commit(batch.sequence)

    def _judge_again(self, trust: TrustSettings) -> None:
        """Judge the episodes on which an older version or other settings may have decided otherwise."""
        settings = {"model_judges": trust.model_judges, "model_judge": MODEL_JUDGE, "by_settings": list(BY_SETTINGS)}
        episodes = [row["episode_id"] for row in self._database.rows(DECIDED_TO_JUDGE_AGAIN, settings)]
        for start in range(0, len(episodes), _JUDGED_AT_ONCE):
            some = episodes[start : start + _JUDGED_AT_ONCE]
            with self._lock, self._transaction(f"judge {len(some)} episodes again") as batch:
                self._judge.judge(batch, some)

    def _write_positions(self, batch: Batch) -> None:
        positions = self._memory.positions
        for (topic, partition), offset in positions.changed():
            statement = SET_OFFSET if (topic, partition) in positions.stored else ADD_OFFSET
            self._database.execute(statement, {"topic": topic, "partition": partition, "next": offset})
        if self._database.shared and batch.sequence != self._memory.sequence:
            # Of two transactions that set it, neither having seen the other, the lake refuses the later one.
            topic, partition = SEQUENCE
            self._database.execute(SET_OFFSET, {"topic": topic, "partition": partition, "next": batch.sequence})
