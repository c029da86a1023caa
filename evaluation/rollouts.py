"""The records of played tasks: what reports, gates and `gate show` read.

`evaluation/arena.py` makes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import overload

from ratchet_client.events import Task
from ratchet_client.messages import Messages, Tools


@dataclass(frozen=True, slots=True)
class Rollout:
    """One played episode. `score` should run from 0 to 1; `invalid_actions` counts those that were not understood.

    `messages` is the whole conversation, the actions among them; `tools` are those that
    were offered at its end. Everything is kept as it came, however odd: the
    sentinels judge that. Only half of a surrogate pair in an action, which no file can hold, is written as `\\ud800`;
    `escaped_actions` counts the actions that had one.
    """

    task_id: str
    success: bool
    score: float
    steps: int
    invalid_actions: int
    actions: Messages
    messages: Messages = ()
    escaped_actions: int = 0
    tools: Tools = ()


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A task that could not be played to its end, twice. It says nothing about who played it: no side is judged by it.

    `reason` is why the second attempt failed.
    """

    task: Task
    reason: str


@dataclass(frozen=True, slots=True)
class Played(Sequence[Rollout]):
    """The rollouts of one side on a list of tasks, in the order of the list, and the tasks that are missing in them."""

    rollouts: tuple[Rollout, ...]
    excluded: tuple[Exclusion, ...] = ()

    @overload
    def __getitem__(self, index: int) -> Rollout: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Rollout, ...]: ...
    def __getitem__(self, index: int | slice) -> Rollout | tuple[Rollout, ...]:
        return self.rollouts[index]

    def __len__(self) -> int:
        return len(self.rollouts)


@dataclass(frozen=True, slots=True)
class Pair:
    """A task that both sides played to the end."""

    task: Task
    champion: Rollout
    candidate: Rollout

    @property
    def is_win(self) -> bool:
        """Return whether only the candidate solved it."""
        return self.candidate.success and not self.champion.success

    @property
    def is_loss(self) -> bool:
        """Return whether only the champion solved it."""
        return self.champion.success and not self.candidate.success


def paired(tasks: Sequence[Task], champion: Played, candidate: Played) -> list[Pair]:
    """The tasks that both played to the end, in the order of `tasks`: what one could not play counts for neither."""
    by_champion, by_candidate = ({rollout.task_id: rollout for rollout in side} for side in (champion, candidate))
    return [
        Pair(task, by_champion[task.task_id], by_candidate[task.task_id])
        for task in tasks
        if task.task_id in by_champion and task.task_id in by_candidate
    ]


@dataclass(slots=True)
class Account:
    """The tasks that were played for one gate, by any side, and those that had to be excluded, by their ids.

    `outage` is why nothing could be played any more: the server is down, or nothing works in the sandboxes.
    """

    played: set[str] = field(default_factory=set)
    excluded: dict[str, Exclusion] = field(default_factory=dict)
    outage: Exception | None = None

    def add(self, played: Played) -> None:
        """Count what one side played."""
        self.played |= {rollout.task_id for rollout in played}
        self.excluded |= {exclusion.task.task_id: exclusion for exclusion in played.excluded}

    @property
    def share(self) -> float:
        """The part of all tasks that was excluded, from 0 to 1; 0 where nothing was played."""
        every = self.played | self.excluded.keys()
        return len(self.excluded) / len(every) if every else 0.0

    def excess(self, most: float) -> str | None:
        """A sentence on the exclusions where they are more than the share `most`; None otherwise."""
        if self.share <= most:
            return None
        first = next(iter(self.excluded.values()))
        every = self.played | self.excluded.keys()
        return (
            f"{len(self.excluded)} of {len(every)} tasks could not be played to their end, {self.share:.1%} where "
            f"{most:.1%} may be (gate.most_excluded), such as {first.task.task_id!r}: {first.reason}"
        )
