"""The one DuckDB file, and its only writer: the record role.

One transaction takes a batch of records and everything that follows from it, offsets included, so that an at-least-once
log is stored exactly once, and a crash between the store and the broker loses nothing.
"""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Self

import duckdb
import pyarrow as pa
import structlog

from streams.decoding import Decoded, Unreadable
from streams.errors import StoreError
from streams.events import BranchResult, OutcomeEvent, StepEvent, Task
from streams.holdout import HoldoutSettings, Split
from streams.log import Outgoing
from streams.rows import MESSAGES, Batch, Watermark
from streams.settings import KafkaSettings, StoreSettings
from streams.tables import TABLES
from streams.trust import StoredStep, branch_request, is_trusted

log = structlog.get_logger()

OUTBOX = "outbox"
_UNANSWERED_SQL = f"""
    SELECT DISTINCT ON (key) topic, key, value, headers FROM {OUTBOX}
    WHERE topic = ? AND key NOT IN (SELECT encode(episode_id) FROM branches)
"""


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of a batch. `replayed` records were below the watermark."""

    stored: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    replayed: int = 0
    trusted: int = 0


@dataclass(frozen=True, slots=True)
class Pending:
    """A message that was decided on and is not yet marked as published."""

    sequence: int
    message: Outgoing


class Store:
    """Append, query, and hand out the outbox. Safe to call from several threads; writers take turns."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, holdout: HoldoutSettings, kafka: KafkaSettings) -> None:
        self._connection = connection
        self._holdout = holdout
        self._kafka = kafka
        self._lock = threading.Lock()
        numbered = [name for name, schema in TABLES.items() if "sequence" in schema.names]
        ends = " UNION ALL ".join(f"SELECT max(sequence) AS last FROM {name}" for name in numbered)
        self._sequence: int = self._rows(f"SELECT coalesce(max(last), 0) + 1 FROM ({ends})")[0][0]
        self._positions = {(row[0], row[1]): row[2] for row in self._rows("SELECT * FROM offsets")}
        self._seen: set[tuple[str, int]] = set()

    @classmethod
    def open(cls, settings: StoreSettings, holdout: HoldoutSettings, kafka: KafkaSettings) -> Self:
        """Open or create the file. Raises `StoreError` when it is damaged or another process has it open."""
        settings.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            connection = duckdb.connect(str(settings.path), config={"threads": "1", "memory_limit": settings.memory})
            for name, schema in TABLES.items():
                connection.register("empty", schema.empty_table())
                connection.execute(f"CREATE TABLE IF NOT EXISTS {name} AS FROM empty")
                connection.unregister("empty")
            # DDL in the write-ahead log is what DuckDB recovers worst.
            connection.execute("CHECKPOINT")
            connection.execute("SET python_enable_replacements = false")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
        except duckdb.Error as error:
            raise StoreError(
                f"cannot open the store {settings.path}: {error}; only one process may have it open"
            ) from error
        return cls(connection, holdout, kafka)

    def close(self) -> None:
        """Write everything into the file proper and close it."""
        with self._lock:
            self._connection.execute("CHECKPOINT")
            self._connection.close()

    def append(self, records: Sequence[Decoded]) -> Appended:
        """Store a batch and all that follows from it in one transaction.

        Records below the watermark are dropped, events stored before are counted as duplicates, unreadable records
        become dead letters, and newly trusted episodes become branch requests; the last two wait in the outbox.

        Raises `StoreError`, and stores nothing, when DuckDB fails or a partition that was being read skips offsets.
        Reading again from `positions` is the remedy: a gap that is still there is the log's own and is recorded.
        """
        with self._lock:
            batch = Batch(self._sequence)
            watermark = Watermark(dict(self._positions), set(self._seen))
            with self._transaction(f"store {len(records)} records"):
                fresh = [record for record in records if watermark.passes(record.received, batch)]
                ended = self._take(batch, fresh)
                duplicates, dead_letters = len(batch.rows["duplicates"]), len(batch.rows["dead_letters"])
                self._insert(batch)
                trusted = self._trust(batch, ended)
                self._insert(batch)
                self._write_positions(watermark.next)
            self._sequence, self._positions, self._seen = batch.sequence, watermark.next, watermark.seen
        return Appended(
            stored=len(fresh) - duplicates - dead_letters,
            duplicates=duplicates,
            dead_letters=dead_letters,
            replayed=len(records) - len(fresh),
            trusted=trusted,
        )

    @property
    def sequence(self) -> int:
        """The sequence of the latest row."""
        return self._sequence - 1

    def positions(self) -> Mapping[tuple[str, int], int]:
        """Per (topic, partition), the offset to read next."""
        return {partition: offset for partition, offset in self._positions.items() if partition[0] != OUTBOX}

    def adopt_log(self, cluster_id: str, ends: Mapping[tuple[str, int], int]) -> None:
        """Say which log is about to be read, and where its partitions end. Call it whenever reading begins.

        A log other than the last one, or a partition that ends before what was read of it, is read from its beginning:
        its offsets mean something else. What is already stored is recognised by its id. Branch requests that nobody
        answered went down with the old log, and are published again.
        """
        with self._lock:
            last = self._rows("SELECT cluster_id FROM logs ORDER BY sequence DESC LIMIT 1")
            anew = bool(last) and last[0][0] != cluster_id
            stale = [
                partition for partition, offset in self.positions().items() if anew or offset > ends.get(partition, 0)
            ]
            if not stale and last and not anew:
                return
            if stale:
                log.warning("reading the log from its beginning", cluster=cluster_id, partitions=len(stale))
            batch = Batch(self._sequence)
            batch.add("logs", cluster_id)
            if anew:
                for topic, key, value, headers in self._rows(_UNANSWERED_SQL, [self._kafka.branches_topic]):
                    batch.add("outbox", topic, key, value, headers)
            positions = self._positions | dict.fromkeys(stale, 0)
            with self._transaction("adopt the log"):
                self._insert(batch)
                self._write_positions(positions)
            self._sequence, self._positions = batch.sequence, positions

    def pending(self, limit: int) -> list[Pending]:
        """The oldest messages of the outbox that are not marked as published."""
        with self._lock:
            rows = self._rows(
                f"SELECT sequence, topic, key, value, headers FROM {OUTBOX} "
                "WHERE sequence >= ? ORDER BY sequence LIMIT ?",
                [self._positions.get((OUTBOX, 0), 0), limit],
            )
        return [
            Pending(sequence, Outgoing(topic, key, value, json.loads(headers)))
            for sequence, topic, key, value, headers in rows
        ]

    def published(self, up_to: int) -> None:
        """Mark the outbox as published up to and with the message of sequence `up_to`."""
        with self._lock:
            positions = self._positions | {(OUTBOX, 0): up_to + 1}
            with self._transaction("mark the outbox as published"):
                self._write_positions(positions)
            self._positions = positions

    def query(self, sql: str) -> pa.Table:
        """The rows of one SELECT. Raises `StoreError` for anything else, and when DuckDB refuses it."""
        cursor = self._connection.cursor()
        try:
            statements = cursor.extract_statements(sql)
            if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                raise StoreError("the query API takes exactly one SELECT statement")
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            return cursor.execute(statements[0]).to_arrow_table()
        except duckdb.Error as error:
            raise StoreError(f"the query failed: {error}") from error
        finally:
            cursor.close()

    def _take(self, batch: Batch, fresh: Sequence[Decoded]) -> list[str]:
        """Sort the records into the batch; returns the episodes that may have become trusted."""
        known, principals = self._known_ids(fresh), self._principals(fresh)
        ended: dict[str, None] = {}
        for record in fresh:
            content = record.content
            if isinstance(content, Unreadable):
                batch.dead_letter(record.received, content, self._kafka.dead_letters_topic)
            elif content.event_id in known:
                batch.duplicate(record.received, content.event_id)
            elif isinstance(content, BranchResult):
                known.add(content.event_id)
                batch.branch_result(content, principals)
            else:
                known.add(content.event_id)
                batch.event(record.received, content)
                # Whichever comes last: steps and verdicts may come from different producers.
                if isinstance(content, OutcomeEvent) or (isinstance(content, StepEvent) and content.done):
                    ended[content.episode_id] = None
        return list(ended)

    def _known_ids(self, records: Sequence[Decoded]) -> set[str]:
        ids = [record.content.event_id for record in records if not isinstance(record.content, Unreadable)]
        rows = self._matching(
            "SELECT event_id FROM events WHERE event_id IN (FROM wanted) "
            "UNION ALL SELECT result_id FROM branches WHERE result_id IN (FROM wanted)",
            ids,
        )
        return {row[0] for row in rows}

    def _principals(self, records: Sequence[Decoded]) -> dict[str, str]:
        episodes = {record.content.episode_id for record in records if isinstance(record.content, BranchResult)}
        if not episodes:
            return {}
        return dict(
            self._matching(
                "SELECT episode_id, any_value(principal) FROM transitions "
                "WHERE origin = 'production' AND episode_id IN (FROM wanted) GROUP BY episode_id",
                list(episodes),
            )
        )

    def _trust(self, batch: Batch, episodes: Sequence[str]) -> int:
        """Add the episodes that became trusted to the batch, and requests to branch those of the training split."""
        if not episodes:
            return 0
        trusted = 0
        for episode, steps, successes in self._judged(episodes):
            if not is_trusted(steps, successes):
                continue
            request = branch_request(episode, steps)
            if request is None:
                log.warning("not trusted: the episode is not one growing chat", episode=episode, steps=len(steps))
                continue
            split = self._holdout.split(request.task.task_id)
            batch.add("trusted", episode, split.value)
            trusted += 1
            if split is Split.TRAIN:
                batch.outgoing(Outgoing(self._kafka.branches_topic, episode.encode(), request.to_json()))
        return trusted

    def _judged(self, episodes: Sequence[str]) -> Iterator[tuple[str, list[StoredStep], list[bool]]]:
        """Of those episodes that have a verdict and are not trusted yet: the id, the steps in order, the verdicts."""
        verdicts = dict(
            self._matching(
                "SELECT episode_id, list(success) FROM outcomes WHERE episode_id IN (FROM wanted) "
                "AND episode_id NOT IN (SELECT episode_id FROM trusted) GROUP BY episode_id",
                episodes,
            )
        )
        rows = self._matching(
            "SELECT episode_id, step, environment, task_id, seed, messages, action, observation, actor_kind "
            "FROM transitions WHERE origin = 'production' AND episode_id IN (FROM wanted) "
            "ORDER BY episode_id, step, sequence",
            list(verdicts),
        )
        for episode, group in groupby(rows, key=lambda row: row[0]):
            steps = [
                StoredStep(
                    step=row[1],
                    task=Task(environment=row[2], task_id=row[3], seed=row[4]),
                    messages=MESSAGES.validate_json(row[5]),
                    action=row[6],
                    observation=row[7],
                    actor_kind=row[8],
                )
                for row in group
            ]
            yield episode, steps, verdicts[episode]

    def _insert(self, batch: Batch) -> None:
        for name, rows in batch.rows.items():
            if not rows:
                continue
            schema = TABLES[name]
            columns = [
                pa.array(column, type=kind) for column, kind in zip(zip(*rows, strict=True), schema.types, strict=True)
            ]
            self._connection.register("batch", pa.Table.from_arrays(columns, schema=schema))
            self._connection.execute(f"INSERT INTO {name} SELECT * FROM batch")
            self._connection.unregister("batch")
        batch.rows.clear()

    def _write_positions(self, positions: Mapping[tuple[str, int], int]) -> None:
        for (topic, partition), offset in positions.items():
            before = self._positions.get((topic, partition))
            if before is None:
                self._connection.execute("INSERT INTO offsets VALUES (?, ?, ?)", [topic, partition, offset])
            elif before != offset:
                self._connection.execute(
                    "UPDATE offsets SET next = ? WHERE topic = ? AND partition = ?", [offset, topic, partition]
                )

    @contextmanager
    def _transaction(self, purpose: str) -> Iterator[None]:
        try:
            self._connection.begin()
            try:
                yield
            except BaseException:
                self._connection.rollback()
                raise
            self._connection.commit()
        except (duckdb.Error, pa.ArrowException) as error:
            raise StoreError(f"could not {purpose}: {error}; nothing of it was kept") from error

    def _rows(self, sql: str, parameters: Sequence[object] = ()) -> list[Any]:
        return self._connection.execute(sql, list(parameters)).fetchall()

    def _matching(self, sql: str, ids: Sequence[str]) -> list[Any]:
        """The rows of a SELECT that finds the ids in the table `wanted`."""
        # As a parameter, a list costs DuckDB a failing import for each of its elements.
        self._connection.register("wanted", pa.table([pa.array(ids, type=pa.string())], names=["id"]))
        rows = self._rows(sql)
        self._connection.unregister("wanted")
        return rows
