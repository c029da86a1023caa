"""What the log has acknowledged: a synced file of the load, and the yardstick of everything that is checked."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """`batches` were published whole; `malformed` are positions (partition, offset) of records that are not events."""

    batches: int = 0
    events: frozenset[str] = frozenset()
    malformed: frozenset[tuple[int, int]] = frozenset()

    def join(self, other: Self) -> Self:
        """What was acknowledged here or there."""
        return type(self)(self.batches + other.batches, self.events | other.events, self.malformed | other.malformed)


@dataclass(frozen=True, slots=True)
class Ledger:
    """One line for each acknowledgement, and one at the end of each batch. Only the load writes it."""

    path: Path

    def read(self) -> Acknowledged:
        """What is in it by now. A line that a kill has torn was never acknowledged to anybody."""
        whole = self.path.read_bytes()[: self._end()].decode() if self.path.exists() else ""
        lines = [line.split(" ") for line in whole.splitlines()]
        return Acknowledged(
            batches=sum(kind == "batch" for kind, *_ in lines),
            events=frozenset(rest[0] for kind, *rest in lines if kind == "event"),
            malformed=frozenset((int(rest[0]), int(rest[1])) for kind, *rest in lines if kind == "malformed"),
        )

    def write(self, events: list[str], malformed: list[tuple[int, int]], batch: int) -> None:
        """Add a batch that was published whole, and return when that is on disk."""
        lines = [
            *(f"event {event}" for event in events),
            *(f"malformed {partition} {offset}" for partition, offset in malformed),
            f"batch {batch}",
        ]
        with self.path.open("ab") as file:
            file.truncate(self._end())
            file.write(("\n".join(lines) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())

    def _end(self) -> int:
        return self.path.read_bytes().rfind(b"\n") + 1 if self.path.exists() else 0
