"""The unit of a record that arrives: what it will be assembled together with. The state calls it, in a transaction."""

import sqlite3
from enum import IntEnum

from ratchet_client.ids import content_id
from streams.assembly import index
from streams.assembly.assembly import Assembled
from streams.assembly.captured import scope_of
from streams.assembly.chains import Place
from streams.assembly.readings import Readings
from streams.assembly.telemetry import conversation_of
from streams.calls.records import CapturedCall, Feedback
from streams.otlp.records import LogRecord, Span

_ADD_TRACE = """
INSERT INTO traces VALUES (:trace, :unit, :name, :kind, :rooted, :open, :bytes, :now)
ON CONFLICT (trace) DO UPDATE SET
    unit = CASE WHEN kind OR NOT excluded.kind THEN unit ELSE excluded.unit END,
    name = CASE WHEN kind OR NOT excluded.kind THEN name ELSE excluded.name END,
    kind = max(kind, excluded.kind), rooted = max(rooted, excluded.rooted),
    open = 1, bytes = bytes + excluded.bytes, last = excluded.last
"""


class Kind(IntEnum):
    """The kind of a trace. Of a unit, the greatest among what is open decides how long a silence ends it."""

    TRACE = 0
    CONVERSATION = 1
    CALL = 2
    NAMED_CALL = 3
    FEEDBACK = 4


def place_of(record: Assembled) -> Place:
    """Return where its episode is noted: captured calls are known by their receipts."""
    match record:
        case CapturedCall():
            return record.receipt, ""
        case Feedback():
            return record.record_id, ""
        case _:
            return record.trace_key, record.span_id


def admit(connection: sqlite3.Connection, record: Assembled, size: int, now: float, readings: Readings) -> None:
    """Give a new record of `size` bytes its unit. `now` is in Unix seconds."""
    common = {"trace": place_of(record)[0], "rooted": False, "open": True, "bytes": size, "now": now}
    match record:
        case CapturedCall():
            _add_call(connection, record, common, readings)
        case Feedback():
            _add_feedback(connection, record, common)
        case _:
            _add_telemetry(connection, record, common)


def _add_telemetry(connection: sqlite3.Connection, record: Span | LogRecord, common: dict[str, object]) -> None:
    conversation = conversation_of(record)
    own = {
        "unit": content_id(record.principal or "", conversation) if conversation else record.trace_key,
        "name": conversation or record.trace_id,
        "kind": Kind.CONVERSATION if conversation else Kind.TRACE,
        "rooted": isinstance(record, Span) and not record.parent_id,
    }
    connection.execute(_ADD_TRACE, common | own)


def _add_call(
    connection: sqlite3.Connection, call: CapturedCall, common: dict[str, object], readings: Readings
) -> None:
    identity = call.labels.episode or call.labels.conversation
    named = (_named(scope_of(call), identity), identity) if identity is not None else None
    unit, name = index.place_call(connection, call, named, float(str(common["now"])), readings)
    kind = Kind.CALL if named is None else Kind.NAMED_CALL
    connection.execute(_ADD_TRACE, common | {"unit": unit, "name": name, "kind": kind})
    connection.execute(
        "UPDATE traces SET unit = ?, name = ?, open = 1, last = ? WHERE unit = ?",
        (unit, name, common["now"], _awaited(call.receipt)),
    )


def _add_feedback(connection: sqlite3.Connection, feedback: Feedback, common: dict[str, object]) -> None:
    own: dict[str, object] = {"kind": Kind.FEEDBACK}
    if feedback.receipt is not None:
        found = connection.execute("SELECT unit, name FROM traces WHERE trace = ?", (feedback.receipt,)).fetchone()
        own |= {"open": found is not None}
        unit, name = found or (_awaited(feedback.receipt), "")
    else:
        name = feedback.episode or ""
        own_unit = _named(scope_of(feedback), name)
        # Without tokens anybody may judge any episode, and need not say whose it is.
        same = connection.execute(
            "SELECT unit FROM traces WHERE name = ? AND kind IN (?, ?) ORDER BY unit = ? DESC, last DESC LIMIT 1",
            (name, Kind.CALL, Kind.NAMED_CALL, own_unit),
        ).fetchone()
        unit = same[0] if same is not None and not feedback.authenticated else own_unit
    connection.execute(_ADD_TRACE, common | own | {"unit": unit, "name": name})


def _named(scope: str, identity: str) -> str:
    """The key of the unit of the calls that name an episode or a conversation."""
    return content_id("named", scope, identity)


def _awaited(receipt: str) -> str:
    return content_id("awaited", receipt)
