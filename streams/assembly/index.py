"""The part of the assembly state that finds the conversation a captured call continues. The state calls it.

It keeps digests of what was said in calls that are not assembled yet, and the histories of responses that requests may
name by their ids. All of it is in the transaction that keeps the call.
"""

import sqlite3
from collections.abc import Sequence

from ratchet_client.ids import content_id
from ratchet_client.messages import MESSAGES, Messages, as_json
from streams.assembly.captured import scope_of
from streams.assembly.continuation import answered, asked, continued
from streams.assembly.readings import Readings
from streams.calls.absence import AbsentContentError
from streams.calls.chat import Chat
from streams.calls.faces import Earlier, response_messages
from streams.calls.records import CapturedCall

SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
    number INTEGER PRIMARY KEY, said TEXT NOT NULL, asked TEXT NOT NULL, trace TEXT NOT NULL, labels TEXT NOT NULL,
    parent INTEGER, continued INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS replies_by_asked ON replies(asked);
CREATE INDEX IF NOT EXISTS replies_by_said ON replies(said);
CREATE INDEX IF NOT EXISTS replies_of_trace ON replies(trace);
CREATE TABLE IF NOT EXISTS awaited (said TEXT NOT NULL, trace TEXT NOT NULL, labels TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS awaited_by_said ON awaited(said);
CREATE INDEX IF NOT EXISTS awaited_of_trace ON awaited(trace);
CREATE TABLE IF NOT EXISTS responses (
    scope TEXT NOT NULL, id TEXT NOT NULL, messages TEXT NOT NULL, last REAL NOT NULL, PRIMARY KEY (scope, id)
) WITHOUT ROWID;
"""
# What is asked again while nothing continues its answer is a retry, or is regenerated: it continues the same.
_ASKED_BEFORE = """
SELECT parent FROM replies WHERE asked = :asked AND labels = :labels AND parent IS NOT NULL AND NOT continued
ORDER BY number DESC LIMIT 1
"""
# Of several that said the same, that one, then one with the same labels, that nothing continues yet, that came last.
_CONTINUED = """
SELECT replies.number, unit, name FROM replies JOIN traces USING (trace) JOIN records USING (trace)
WHERE said = :said AND value IS NOT NULL
ORDER BY replies.number = :parent DESC, replies.labels = :labels DESC, continued, replies.number DESC LIMIT 1
"""
_AWAITING = """
SELECT awaited.rowid, unit, name FROM awaited JOIN traces USING (trace) JOIN records USING (trace)
WHERE said = :said AND value IS NOT NULL ORDER BY awaited.labels = :labels DESC, awaited.rowid LIMIT 1
"""

Unit = tuple[str, str]  # its key and its name


def earlier_of(connection: sqlite3.Connection, call: CapturedCall) -> Earlier:
    """The messages of the responses that the call may name."""

    def messages(identity: str) -> Messages | None:
        found = connection.execute(
            "SELECT messages FROM responses WHERE scope = ? AND id = ?", (scope_of(call), identity)
        ).fetchone()
        return None if found is None else MESSAGES.validate_json(found[0])

    return messages


def place_call(
    connection: sqlite3.Connection, call: CapturedCall, named: Unit | None, now: float, readings: Readings
) -> Unit:
    """Index a call and say which unit it belongs to: the one that it names, else that of the call it continues.

    A call that continues none that is open, or cannot be read, begins a unit. One that comes after the call that
    continues it takes that one's unit.
    """
    own = named or (content_id("call", call.receipt), call.receipt)
    try:
        chats = readings.read(call, earlier_of(connection, call))
    except AbsentContentError:
        return own
    scope = scope_of(call)
    labels = content_id(call.labels.model_dump_json())
    again, before = content_id(scope, asked(chats[0])), continued(chats[0])
    parent, found = None, None
    if before is not None:
        parent, found = _continued(connection, content_id(scope, before), again, labels)
    unit = named or found or own
    if before is not None and found is None:
        connection.execute("INSERT INTO awaited VALUES (?, ?, ?)", (content_id(scope, before), call.receipt, labels))
    for chat in chats:
        said = content_id(scope, answered(chat))
        follows = _awaiting(connection, said, labels)
        if follows is not None and named is None and found is None:
            unit = follows
        elif follows is not None and follows[0] != unit[0]:
            connection.execute("UPDATE traces SET unit = ?, name = ? WHERE unit = ?", (*unit, follows[0]))
        connection.execute(
            "INSERT INTO replies (said, asked, trace, labels, parent, continued) VALUES (?, ?, ?, ?, ?, ?)",
            (said, again, call.receipt, labels, parent, follows is not None),
        )
        _remember(connection, scope, call, chat, now)
    return unit


def forget(connection: sqlite3.Connection, traces: Sequence[str]) -> None:
    """Forget what was said in calls whose events are decided on."""
    for table in ("replies", "awaited"):
        connection.executemany(f"DELETE FROM {table} WHERE trace = ?", ((trace,) for trace in traces))


def _continued(connection: sqlite3.Connection, said: str, again: str, labels: str) -> tuple[int | None, Unit | None]:
    """The number of the reply that a call continues, and its unit; both None where there is none."""
    before = connection.execute(_ASKED_BEFORE, {"asked": again, "labels": labels}).fetchone()
    told = {"said": said, "labels": labels, "parent": before[0] if before is not None else None}
    found = connection.execute(_CONTINUED, told).fetchone()
    if found is None:
        return None, None
    connection.execute("UPDATE replies SET continued = 1 WHERE number = ?", found[:1])
    return found[0], (found[1], found[2])


def _awaiting(connection: sqlite3.Connection, said: str, labels: str) -> Unit | None:
    found = connection.execute(_AWAITING, {"said": said, "labels": labels}).fetchone()
    if found is None:
        return None
    connection.execute("DELETE FROM awaited WHERE rowid = ?", found[:1])
    return found[1], found[2]


def _remember(connection: sqlite3.Connection, scope: str, call: CapturedCall, chat: Chat, now: float) -> None:
    response = response_messages(call, chat)
    if response is not None:
        identity, messages = response
        connection.execute(
            "INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?)", (scope, identity, as_json(messages), now)
        )
