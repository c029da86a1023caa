"""The file of the account of held-out tasks, `task_uses.jsonl`: JSON lines that are only ever appended.

The learner writes it before tasks are played, so that no crash loses a use; status, doctor and metrics read it. What is
counted for a trial already is not counted for it again, so that a trial may be resumed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Annotated

import structlog
from pydantic import Field, TypeAdapter, ValidationError

from daemon.registry.audit import Action
from daemon.registry.registry import Registry
from evaluation.account_summary import AccountSummary
from evaluation.task_account import ListName, TaskAccount, TasksUsed, TrialBegun
from streams.errors import RegistryError
from streams.runtime.json_lines import append_lines, end_of_lines, locked, read_all, whole_lines

log = structlog.get_logger()

TASK_USES_FILE = "task_uses.jsonl"

_ENTRY: TypeAdapter[TrialBegun | TasksUsed] = TypeAdapter(
    Annotated[TrialBegun | TasksUsed, Field(discriminator="kind")]
)


@dataclass(frozen=True, slots=True)
class TaskUses:
    """The account in the folder `home`. Several processes may use it at once; a lock on the file orders them."""

    home: Path

    @property
    def path(self) -> Path:
        return self.home / TASK_USES_FILE

    def account(self) -> TaskAccount:
        """All that is counted. Raises `RegistryError` for a line that is no entry.

        A line that a crash left unfinished is passed over: its tasks were not begun.
        """
        try:
            return self._parsed(self.path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return TaskAccount()

    def begin(self, begun: TrialBegun) -> None:
        """Note that a trial was given its lists, once. When this returns, the entry is on disk."""
        with locked(self.path) as file:
            content = read_all(file)
            if begun.trial not in {known.trial for known in self._parsed(content).trials}:
                _append(file, content, [begun])

    def count(self, trial: str, gate: str, tasks: Iterable[tuple[ListName, str]]) -> None:
        """Count tasks that `gate` is about to play in `trial`; those that are counted for it already are not again.

        When this returns, the uses are on disk.
        """
        now = datetime.now(UTC)
        with locked(self.path) as file:
            content = read_all(file)
            known = self._parsed(content).played(trial)
            new: dict[ListName, list[str]] = {}
            for name, task in dict.fromkeys(tasks):
                if task not in known:
                    new.setdefault(name, []).append(task)
            uses = [TasksUsed(trial=trial, gate=gate, list=name, tasks=tuple(ids), at=now) for name, ids in new.items()]
            _append(file, content, uses)

    def _parsed(self, content: bytes) -> TaskAccount:
        entries = []
        for number, line in enumerate(whole_lines(content), start=1):
            try:
                entries.append(_ENTRY.validate_json(line))
            except ValidationError as error:
                raise RegistryError(
                    f"{self.path}, line {number}, is not an entry of the account of held-out tasks: restore the file "
                    "from a backup, or remove that line"
                ) from error
        return TaskAccount.of(entries)


def promotions(registry: Registry) -> int:
    """The promotions there were: after each, what the lists selected serves."""
    return sum(entry.action is Action.PROMOTED for entry in registry.audit.read())


def account_summary(registry: Registry) -> AccountSummary:
    """The account as it stands. Raises `RegistryError` for a damaged file."""
    return TaskUses(registry.home).account().summary(promotions(registry))


def readable_summary(registry: Registry) -> AccountSummary | None:
    """The same; None where the file is damaged, so that all else that is shown beside it still is."""
    try:
        return account_summary(registry)
    except RegistryError as error:
        log.warning("the account of held-out tasks is not told", reason=str(error))
        return None


def _append(file: FileIO, content: bytes, entries: Sequence[TrialBegun | TasksUsed]) -> None:
    """Write entries behind the last whole line of `content`, which is all that the file has."""
    if entries:
        lines = b"".join(entry.model_dump_json().encode() + b"\n" for entry in entries)
        append_lines(file, end_of_lines(content), lines)
