"""The audit log: who did what to which adapter, why and when. Hash-chained JSON lines that are only ever appended.

The registry writes it, from the serving process and from the learner's; `ratchet history` reads it.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from io import FileIO
from pathlib import Path

from pydantic import AwareDatetime, ValidationError

from daemon.registry.lifecycle import State
from daemon.registry.schemas import CanaryReport, CanaryStart, CycleReport, Drill, Erasure, Reservation
from ratchet_client.settings import FrozenModel
from streams.errors import AuditError
from streams.runtime.json_lines import append_lines, end_of_lines, locked, read_all, whole_lines

GENESIS = "0" * 64


class Action(StrEnum):
    """The actions that the audit log records."""

    NAMED = "named"
    MOVED = "moved"
    PROMOTED = "promoted"
    PROMOTION_FAILED = "promotion_failed"
    ROLLED_BACK = "rolled_back"
    RECONCILED = "reconciled"
    CYCLE = "cycle"
    RETRAIN = "retrain"
    CANARY_STARTED = "canary_started"
    CANARY_ENDED = "canary_ended"
    ANCHORED = "anchored"
    RESERVED = "reserved"
    RESTORED = "restored"
    HOLD = "hold"
    RESUMED = "resumed"
    DRILLED = "drilled"
    ERASED = "erased"


class AuditEvent(FrozenModel):
    """An audited action: `actor` did `action` to the adapter `subject`, because of `reason`.

    `state` is what `subject` became by it, `replaced` the adapter that served before. `against` is the champion that
    `subject` was judged against. `retraction` is the id of the retraction, or of the withdrawal of trust, for which
    `subject` is to be trained again: the log cannot forget, so it never names a principal. `reserved` is the alpha of
    the gate that `subject` is about to play. `canary_start` and `canary` are of a canary that began or ended.
    `instance` is the id of the home that named `subject`, and `drill` the result of a drill.
    `erasure` is what was removed of the home, by ids; `subject` is then the erasure's own id.
    """

    actor: str
    action: Action
    subject: str
    reason: str
    state: State | None = None
    replaced: str | None = None
    cycle: CycleReport | None = None
    retraction: str | None = None
    against: str | None = None
    canary_start: CanaryStart | None = None
    canary: CanaryReport | None = None
    reserved: Reservation | None = None
    instance: str | None = None
    drill: Drill | None = None
    erasure: Erasure | None = None


class AuditEntry(AuditEvent):
    """An audited action as the log holds it.

    `hash` covers the line but itself, `previous` is the hash of the line before.
    """

    sequence: int
    at: AwareDatetime
    previous: str
    hash: str


class AuditLog:
    """The log in the file `path`. Any number of processes may append and read; a lock on the file orders them.

    A line that a crash left unfinished was never acknowledged: readers pass over it, the next append removes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: tuple[tuple[int, int, int], list[AuditEntry]] | None = None

    @contextmanager
    def locked(self) -> Iterator["LockedLog"]:
        """Keep every other process from appending: what is read stays true until what follows from it is written.

        Not to be nested.
        """
        with locked(self.path) as file:
            yield LockedLog(file)

    def append(self, audit_event: AuditEvent) -> AuditEntry:
        """Add `audit_event`. When this returns, the entry is on disk."""
        with self.locked() as log:
            return log.append(audit_event)[0]

    def read(self) -> list[AuditEntry]:
        """All entries, oldest first. Raises `AuditError` for a line that is none; `verify` checks the chain."""
        try:
            state = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return []
        # Metrics, status and every look at a state ask for all of it, most of the time without anything new in it.
        seen = (state.st_ino, state.st_size, state.st_mtime_ns)
        if self._read is None or self._read[0] != seen:
            self._read = seen, _parse(self._bytes())
        return list(self._read[1])

    def verify(self) -> int:
        """Check every hash; the number of entries. Raises `AuditError` naming the first bad line."""
        previous, count = GENESIS, 0
        for count, line in enumerate(whole_lines(self._bytes()), start=1):
            try:
                fields = json.loads(line)
                whole = _written(fields)
                stored = fields.pop("hash")
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise AuditError(f"{self.path}, line {count}: not an entry of an audit log") from error
            links = fields.get("sequence") == count and fields.get("previous") == previous
            if not links or stored != _hash(fields) or whole != line:
                raise AuditError(
                    f"{self.path}, line {count}: the chain is broken, somebody changed this line or one before it; "
                    "compare with a backup"
                )
            previous = stored
        return count

    def _bytes(self) -> bytes:
        try:
            return self.path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return b""


class LockedLog:
    """The log while its lock is held. Got from `AuditLog.locked`."""

    def __init__(self, file: FileIO) -> None:
        self._file = file

    def read(self) -> list[AuditEntry]:
        return _parse(read_all(self._file))

    def append(self, *audit_events: AuditEvent) -> list[AuditEntry]:
        """Add all of them in one write. When this returns, they are on disk; when it raises, the log is as it was."""
        # The log grows by a few lines a cycle, so reading it whole to find its end costs nothing worth saving.
        content = read_all(self._file)
        last = _parse(content)[-1:]
        sequence, previous = (last[0].sequence, last[0].hash) if last else (0, GENESIS)
        entries, lines = [], b""
        for audit_event in audit_events:
            sequence += 1
            fields = audit_event.model_dump(mode="json", exclude_none=True) | {
                "sequence": sequence,
                "at": datetime.now(UTC).isoformat(),
                "previous": previous,
            }
            previous = _hash(fields)
            line = fields | {"hash": previous}
            lines += _written(line) + b"\n"
            entries.append(AuditEntry.model_validate(line))
        append_lines(self._file, end_of_lines(content), lines)
        return entries


def _written(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, sort_keys=True, ensure_ascii=False).encode()


def _hash(fields: dict[str, object]) -> str:
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _parse(content: bytes) -> list[AuditEntry]:
    entries = []
    for number, line in enumerate(whole_lines(content), start=1):
        try:
            entries.append(AuditEntry.model_validate_json(line))
        except ValidationError as error:
            raise AuditError(f"line {number} of the audit log is not an entry: {error}") from error
    return entries
