"""The state of the assembler, read and not yet made into events: one SQLite file, written by the assemble role alone.

Nothing is acknowledged to the log before it is here, and events are decided on here before they are published. So a
crash at any point leads to the same events again, with the same ids.
"""

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, TypeAdapter

from ratchet_client.crash_points import CrashPoint, reach
from ratchet_client.messages import Messages
from streams.assembly import index
from streams.assembly.arrivals import admit, place_of
from streams.assembly.assembly import Assembled
from streams.assembly.chains import Place
from streams.assembly.readings import Readings
from streams.assembly.settings import AssemblySettings
from streams.assembly.tables import open_tables
from streams.calls.chat import Chat
from streams.calls.faces import Earlier
from streams.calls.records import CapturedCall
from streams.errors import StoreError
from streams.kafka.records import Outgoing
from streams.runtime.json_lines import locked

_ONE_ROLE = "only one assemble role may have it open"
# The silence after which a unit is complete.
_LIMIT = """CASE max(kind)
        WHEN 4 THEN :settle WHEN 3 THEN :episode WHEN 2 THEN :call WHEN 1 THEN :conversation
        ELSE CASE WHEN min(rooted) THEN :settle ELSE :idle END
    END"""
_DUE = f"""
SELECT unit, name FROM traces WHERE open GROUP BY unit
HAVING max(last) <= :now - {_LIMIT}
    OR sum(bytes) >= :bytes
ORDER BY max(last) LIMIT 100
"""
_SETTLING = f"""
SELECT min(at), max(at) FROM (SELECT max(last) + {_LIMIT} AS at FROM traces WHERE open GROUP BY unit)
"""
_UNFINISHED = """
SELECT count(*), min(last),
    (SELECT count(*) FROM records JOIN traces USING (trace) WHERE NOT open AND value IS NOT NULL)
FROM (SELECT max(last) AS last FROM traces WHERE open GROUP BY unit)
"""


_RECORD: TypeAdapter[Assembled] = TypeAdapter(Annotated[Assembled, Field(discriminator="record")])


@dataclass(frozen=True, slots=True)
class Unit:
    """A trace, or the traces or calls of one conversation: what is assembled together. `name` is its id outside."""

    key: str
    name: str


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """An event that was decided on and is not yet marked as published."""

    number: int
    message: Outgoing


class AssemblyState:
    """Add records, ask what is due, close it with its events, hand these out. Safe to call from several threads."""

    def __init__(self, connection: sqlite3.Connection, settings: AssemblySettings, held: ExitStack) -> None:
        """`held` is the lock of the only writer; it is let go by `close`."""
        self._connection = connection
        self._held = held
        self._settings = settings
        self._lock = threading.Lock()
        self._readings = Readings()
        self._latest = 0.0

    @classmethod
    def open(cls, settings: AssemblySettings, now: float) -> Self:
        """Open or create the file. Raises `StoreError` when it is damaged or another process writes it.

        `now`, here and elsewhere, is in Unix seconds. What was open waits again: while no worker read the log, silence
        meant nothing.
        """
        path: Path = settings.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            # A second process would publish everything twice. SQLite's own lock would keep backups out as well.
            try:
                stack.enter_context(locked(path.with_name(f"{path.name}.lock"), wait=False))
            except BlockingIOError as error:
                raise StoreError(f"cannot open {path}: {_ONE_ROLE}") from error
            return cls(_opened(path, now), settings, stack.pop_all())

    def close(self) -> None:
        with self._lock, self._held:
            self._connection.close()

    def add(self, records: Sequence[Assembled], now: float) -> int:
        """Keep the records, durably when this returns. Returns how many were here before."""
        repeated = 0
        self._latest = max(self._latest, now)
        with self._transaction("keep records") as connection:
            for record in records:
                value = record.to_json()
                trace, span = place_of(record)
                cursor = connection.execute(
                    "INSERT INTO records (id, trace, span, value) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
                    (record.record_id, trace, span, value),
                )
                if not cursor.rowcount:
                    repeated += 1
                    continue
                admit(connection, record, len(value), now, self._readings)
        return repeated

    def due(self, now: float) -> list[Unit]:
        """The units that are complete at `now`, the longest silent first; at most a hundred.

        Where the clock was set back, silence that began later begins now: nobody waits until the clock is there again.
        """
        if now < self._latest:
            with self._transaction("begin silences again") as connection:
                connection.execute("UPDATE traces SET last = ? WHERE open AND last > ?", (now, now))
        self._latest = now
        limits = {**self._limits(), "now": now, "bytes": self._settings.max_open_bytes}
        with self._errors_explained("look for complete traces"), self._lock:
            return [Unit(*row) for row in self._connection.execute(_DUE, limits)]

    def settling(self, now: float) -> tuple[int, int]:
        """In how many seconds the first open unit is complete if nothing more comes, and the last; zeros for none."""
        with self._errors_explained("look when what is open is complete"), self._lock:
            first, last = self._connection.execute(_SETTLING, self._limits()).fetchone()
        return (0, 0) if first is None else (max(0, round(first - now)), max(0, round(last - now)))

    def _limits(self) -> dict[str, float]:
        settings = self._settings
        return {
            "conversation": settings.conversation_idle_s,
            "call": settings.call_idle_s,
            "episode": settings.episode_idle_s,
            "settle": settings.settle_s,
            "idle": settings.idle_s,
        }

    def unfinished(self, now: float) -> tuple[int, int, int]:
        """The number of open units, the longest silence of one in seconds, and how much feedback waits for its call."""
        with self._errors_explained("count what is open"), self._lock:
            count, oldest, waiting = self._connection.execute(_UNFINISHED).fetchone()
        return count, 0 if oldest is None else max(0, round(now - oldest)), waiting

    def earlier(self, call: CapturedCall) -> Earlier:
        """The messages of responses that the call may name."""
        find = index.earlier_of(self._connection, call)

        def messages(identity: str) -> Messages | None:
            with self._errors_explained("read a response"), self._lock:
                return find(identity)

        return messages

    def chats(self, call: CapturedCall) -> list[Chat]:
        """The chats of a call that is to be assembled. Raises `AbsentContentError`."""
        return self._readings.take(call, self.earlier(call))

    def read(self, unit: Unit) -> tuple[list[Assembled], Mapping[Place, str]]:
        """The records of the unit that are not assembled yet, in order of arrival, and the episodes made of others."""
        with self._errors_explained("read spans"), self._lock:
            values = self._connection.execute(
                "SELECT value FROM records JOIN traces USING (trace) "
                "WHERE unit = ? AND value IS NOT NULL ORDER BY number",
                (unit.key,),
            ).fetchall()
            known = self._connection.execute(
                "SELECT trace, span, episode FROM records JOIN traces USING (trace) "
                "WHERE unit = ? AND episode IS NOT NULL ORDER BY number",
                (unit.key,),
            ).fetchall()
        return [_RECORD.validate_json(row[0]) for row in values], {(row[0], row[1]): row[2] for row in known}

    def close_unit(
        self, unit: Unit, records: Sequence[Assembled], episodes: Mapping[Place, str], messages: Sequence[Outgoing]
    ) -> None:
        """Put the messages into the outbox and forget what the assembled records say, in one transaction."""
        with self._transaction("close an episode") as connection:
            connection.executemany(
                "UPDATE records SET value = NULL, episode = ? WHERE id = ?",
                ((episodes.get(place_of(record)), record.record_id) for record in records),
            )
            index.forget(connection, [record.receipt for record in records if isinstance(record, CapturedCall)])
            connection.executemany(
                "INSERT INTO outbox (topic, key, value, headers) VALUES (?, ?, ?, ?)",
                (
                    (
                        message.topic,
                        message.key,
                        message.value,
                        json.dumps([(k, v.decode()) for k, v in message.headers]),
                    )
                    for message in messages
                ),
            )
            # More may have come since `read`.
            connection.execute(
                "UPDATE traces SET bytes = (SELECT coalesce(sum(length(value)), 0) FROM records "
                "WHERE records.trace = traces.trace) WHERE unit = ?",
                (unit.key,),
            )
            connection.execute("UPDATE traces SET open = bytes > 0 WHERE unit = ?", (unit.key,))

    def pending(self, limit: int) -> list[OutboxMessage]:
        """The oldest events that are not marked as published."""
        with self._errors_explained("read events"), self._lock:
            rows = self._connection.execute("SELECT * FROM outbox ORDER BY number LIMIT ?", (limit,)).fetchall()
        return [
            OutboxMessage(number, Outgoing(topic, key, value, _headers(text)))
            for number, topic, key, value, text in rows
        ]

    def published(self, number: int) -> None:
        """Forget the events up to `number`: the log has them."""
        with self._transaction("mark events as published") as connection:
            connection.execute("DELETE FROM outbox WHERE number <= ?", (number,))

    def prune(self, now: float) -> int:
        """Forget what has been closed for longer than the retention, and responses that nobody may name any more.

        Returns how much feedback was among it whose call never came.
        """
        with self._transaction("prune traces") as connection:
            before = (now - self._settings.retention_s,)
            old = "SELECT trace FROM traces WHERE NOT open AND last < ?"
            (waited,) = connection.execute(
                f"SELECT count(*) FROM records WHERE value IS NOT NULL AND trace IN ({old})", before
            ).fetchone()
            connection.execute(f"DELETE FROM records WHERE trace IN ({old})", before)
            connection.execute("DELETE FROM traces WHERE NOT open AND last < ?", before)
            connection.execute("DELETE FROM responses WHERE last < ?", (now - self._settings.history_s,))
        return int(waited)

    @contextmanager
    def _transaction(self, what: str) -> Iterator[sqlite3.Connection]:
        with self._errors_explained(what), self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            reach(CrashPoint.COMMIT_BEFORE)
            self._connection.execute("COMMIT")
            reach(CrashPoint.COMMIT_AFTER)

    @contextmanager
    def _errors_explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"cannot {what} in {self._settings.path}: {error}; is the disk full?") from error


def _opened(path: Path, now: float) -> sqlite3.Connection:
    try:
        connection = open_tables(path)
        connection.execute("UPDATE traces SET last = ? WHERE open", (now,))
    except sqlite3.Error as error:
        raise StoreError(f"cannot open {path}: {error}; {_ONE_ROLE}") from error
    return connection


def _headers(text: str) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, value.encode()) for name, value in json.loads(text))
