"""The durable record of a trial's rollouts: a file of JSON lines that is only ever appended, each line synced.

The arena writes it and looks into it before it plays: a trial that is resumed plays nothing twice. `ratchet gate show`
reads it, so that a person can read what was played.
"""

import os
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import AwareDatetime, ConfigDict, Field, ValidationError

from evaluation.rollouts import Exclusion, Rollout
from ratchet_client.crash_points import CrashPoint, reach
from ratchet_client.events import Task
from ratchet_client.settings import FrozenModel
from ratchet_client.syncing import sync_folder
from streams.errors import GateError
from streams.runtime.json_lines import append_lines, end_of_lines, locked, read_all, whole_lines


def rollouts_path(home: Path, adapter: str, trial: int) -> Path:
    """The record of the trial of that number, from 1, that the candidate `adapter` was in.

    The folders of adapters themselves never change. A candidate that is on trial again is played again.
    """
    return home / "trials" / f"{adapter}-{trial}" / "rollouts.jsonl"


def newest_rollouts(home: Path, adapter: str) -> Path:
    """The record of the last trial of `adapter`; that of the first where there was none.

    A folder that somebody moved away beside the others, `ADAPTER-1.bak`, is none of them.
    """
    numbers = [
        int(number)
        for record in (home / "trials").glob(f"{adapter}-*/rollouts.jsonl")
        if (number := record.parent.name.removeprefix(f"{adapter}-")).isdecimal()
    ]
    return rollouts_path(home, adapter, max(numbers, default=1))


@dataclass(frozen=True, slots=True)
class Key:
    """The play of `task` by `adapter` for `gate`: number `repeat`, from 0, of those that the gate asks for.

    `conditions` is a hash of everything else that the rollout depends on.
    """

    gate: str
    adapter: str
    task: Task
    repeat: int
    conditions: str

    @property
    def text(self) -> str:
        """All of it in one text, which no other key has."""
        return "\0".join((self.gate, self.adapter, self.task.model_dump_json(), str(self.repeat), self.conditions))


class Entry(FrozenModel):
    """One line of the record: a `rollout`, or the reason why the task was `excluded`.

    A score that is not a number stands as a text: `"NaN"`, `"Infinity"`.
    """

    model_config = ConfigDict(ser_json_inf_nan="strings")

    gate: str
    adapter: str
    served: str
    task: Task
    repeat: int = Field(ge=0)
    conditions: str
    at: AwareDatetime
    rollout: Rollout | None = None
    excluded: str | None = None

    @classmethod
    def of(cls, key: Key, served: str, outcome: Rollout | Exclusion) -> Self:
        """The line on what came of playing `key` by the model that was `served` under this name."""
        return cls(
            gate=key.gate,
            adapter=key.adapter,
            served=served,
            task=key.task,
            repeat=key.repeat,
            conditions=key.conditions,
            at=datetime.now(UTC),
            rollout=outcome if isinstance(outcome, Rollout) else None,
            excluded=outcome.reason if isinstance(outcome, Exclusion) else None,
        )

    @property
    def key(self) -> Key:
        return Key(self.gate, self.adapter, self.task, self.repeat, self.conditions)

    @property
    def outcome(self) -> Rollout | Exclusion:
        """The rollout, or the exclusion."""
        return self.rollout or Exclusion(self.task, self.excluded or "the reason was not written down")


class RolloutLog:
    """The record in the file `path`, which one process writes at a time. Use it as a context manager.

    A line that a crash left unfinished was never acknowledged and is removed. Raises `GateError` when another process
    has the file open, or when it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: FileIO | None = None
        self._open = ExitStack()
        self._known: dict[str, Entry] = {}
        self._asked: Counter[str] = Counter()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            try:
                self._file = stack.enter_context(locked(self.path, wait=False))
            except BlockingIOError as error:
                raise GateError(f"{self.path} is open in another process: let that one finish its trial") from error
            content = read_all(self._file)
            self._file.truncate(end_of_lines(content))
            self._known = {entry.key.text: entry for entry in _parse(self.path, content)}
            sync_folder(self.path.parent)
            sync_folder(self.path.parent.parent)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def next_key(self, gate: str, adapter: str, task: Task, conditions: str) -> Key:
        """The key of the next play of `task`: asked for in the same order, a resumed trial gets the same keys."""
        first = Key(gate, adapter, task, 0, conditions)
        self._asked[first.text] += 1
        return Key(gate, adapter, task, self._asked[first.text] - 1, conditions)

    def find(self, key: Key) -> Entry | None:
        """Return what was played under `key`."""
        return self._known.get(key.text)

    def append(self, entry: Entry) -> None:
        """Add a line. When this returns it is on disk. Raises `GateError` where the disk does not take it."""
        assert self._file is not None
        line = entry.model_dump_json(exclude_none=True).encode() + b"\n"
        reach(CrashPoint.ROLLOUT_BEFORE)
        try:
            append_lines(self._file, self._file.seek(0, os.SEEK_END), line)
        except OSError as error:
            raise GateError(f"a rollout could not be added to {self.path}: {error}. Make room, and resume.") from error
        reach(CrashPoint.ROLLOUT_AFTER)
        self._known[entry.key.text] = entry


def read_rollouts(path: Path) -> tuple[Entry, ...]:
    """Every entry of the record, oldest first; of a file that is not there, none. Raises `GateError` for damage."""
    try:
        return _parse(path, path.read_bytes())
    except FileNotFoundError:
        return ()


def _parse(path: Path, content: bytes) -> tuple[Entry, ...]:
    entries = []
    for number, line in enumerate(whole_lines(content), start=1):
        try:
            entries.append(Entry.model_validate_json(line))
        except ValidationError as error:
            raise GateError(
                f"{path}, line {number}: not a rollout ({error.error_count()} of its fields are wrong). "
                "Restore the file from a backup, or move it away to play the trial again."
            ) from error
    return tuple(entries)
