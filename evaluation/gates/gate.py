"""The interface of a gate, and what it judges from.

A gate is a class that takes the `GateSettings` and satisfies `Gate`; it registers under the entry-point group
`ratchet.gates`, and `gate.gates` names those that are played, in their order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from evaluation.arena import Arena
from evaluation.gates.verdict import GateResult
from evaluation.rollouts import Pair
from streams.events import Task
from streams.trust.holdout import HoldoutSettings

Progress = Callable[[str, int, int], None]
"""Is told the name of a gate, and the episodes finished and in all."""


@dataclass(frozen=True, slots=True)
class Competitor:
    """An adapter that plays: its digest, or `base`, and the name that the server has it under."""

    adapter: str
    served: str


@dataclass(frozen=True, slots=True)
class TaskLists:
    """The held-out tasks that gates may play, each list in the order in which it is to be played.

    `selection` tasks judge every candidate; `confirmation` tasks are fresh: few candidates ever meet them. `golden` are
    those that the operator pinned. `unsolvable` are tasks that only a cheat solves. `played` is the number of trials
    before this one that played tasks of the selection list, and `fresh` are the ids of tasks that none has played.
    """

    selection: tuple[Task, ...]
    confirmation: tuple[Task, ...] = ()
    golden: tuple[Task, ...] = ()
    unsolvable: tuple[Task, ...] = ()
    played: int = 0
    fresh: frozenset[str] = frozenset()

    def everything(self) -> tuple[Task, ...]:
        """The tasks of all lists."""
        return (*self.selection, *self.confirmation, *self.golden, *self.unsolvable)


@dataclass(slots=True)
class Evidence:
    """Everything that gates judge a candidate from.

    `alpha` is the false-positive probability that this trial may spend, written down before anything is played.
    `holdout` says which tasks training may have seen. `pairs` are what the `improvement` gate played, and `results`
    what the gates before this one returned. `playing` is the name of the gate that judges now. `labels` has, by task
    id, the values of labels such as the agents and tenants that met the task in production.
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
    playing: str = ""
    labels: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)


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
