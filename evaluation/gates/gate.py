"""The interface of a gate, and what it judges from.

A gate is a class that takes the `GateSettings` and satisfies `Gate`; it registers under the entry-point group
`ratchet.gates`, and `gate.gates` names those that are played, in their order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from evaluation.arena import Arena
from evaluation.gates.verdict import GateResult
from evaluation.power import ASSUMED, Expected
from evaluation.rollouts import Pair
from learners.canaries import Canary
from learners.held_out_states import RecordedState
from ratchet_client.events import Task
from streams.trust.holdout import HoldoutSettings

Progress = Callable[[str, int, int], None]
"""Is told the name of a gate, and the episodes finished and in all."""


@dataclass(frozen=True, slots=True)
class Competitor:
    """An adapter that plays: its digest, or `base`, and the name that the server has it under.

    `missing` says why the server could not load it; empty for one that is there.
    """

    adapter: str
    served: str
    missing: str = ""


@dataclass(frozen=True, slots=True)
class TaskLists:
    """The held-out tasks that gates may play, each list in the order in which it is to be played.

    `selection` tasks judge every candidate; `confirmation` tasks are fresh: few candidates ever meet them. `golden` are
    those that the operator pinned. `unsolvable` are tasks that only a cheat solves. `played` is the number of trials
    before this one that played tasks of the selection list, and `fresh` are the ids of tasks that none has played; None
    where no account is kept: then those of `confirmation` are, and those of `selection` as long as `played` is 0.
    """

    selection: tuple[Task, ...]
    confirmation: tuple[Task, ...] = ()
    golden: tuple[Task, ...] = ()
    unsolvable: tuple[Task, ...] = ()
    played: int = 0
    fresh: frozenset[str] | None = None

    def unplayed(self) -> frozenset[str]:
        """The ids of the tasks of `selection` and `confirmation` that no trial has played."""
        if self.fresh is not None:
            return self.fresh
        return frozenset(task.task_id for task in (*self.confirmation, *(() if self.played else self.selection)))

    def everything(self) -> tuple[Task, ...]:
        """The tasks of all lists."""
        return (*self.selection, *self.confirmation, *self.golden, *self.unsolvable)


@dataclass(slots=True)
class Evidence:
    """Everything that gates judge a candidate from.

    `alpha` is the false-positive probability that this trial may spend, written down before anything is played.
    `holdout` says which tasks training may have seen. `pairs` are what the `improvement` gate played, and `results`
    what the gates before this one returned. `expected` is how two adapters play, as far as earlier gates tell. `labels`
    has, by task id, the values of labels such as the agents and tenants that met the task in production. `canaries`
    were planted in what the candidate, or an ancestor of it, was trained on. `recorded` are states of production's
    trusted episodes on held-out tasks, and `canary_share` is the share of episodes that a candidate serves before it is
    promoted, 0 where it is promoted at once.
    """

    arena: Arena
    candidate: Competitor
    champion: Competitor
    anchor: Competitor
    base: Competitor
    tasks: TaskLists
    alpha: float
    holdout: HoldoutSettings
    progress: Progress = lambda gate, done, total: None
    pairs: list[Pair] = field(default_factory=list)
    results: list[GateResult] = field(default_factory=list)
    canaries: tuple[Canary, ...] = ()
    recorded: tuple[RecordedState, ...] = ()
    canary_share: float = 0.0
    expected: Expected = ASSUMED
    labels: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)

    def adapters(self) -> dict[str, str]:
        """The adapters that may play, by the names that the server has them under."""
        return {each.served: each.adapter for each in (self.base, self.anchor, self.champion, self.candidate)}


class Gate(Protocol):
    """One condition of a promotion.

    `plays` says that it plays tasks of its own, or costs as much: it is passed over once a candidate can no longer be
    promoted.
    """

    name: ClassVar[str]
    plays: ClassVar[bool]

    async def judge(self, evidence: Evidence) -> GateResult:
        """Judge the candidate. Raises `RatchetError` when it cannot; that is never a promotion."""
        ...
