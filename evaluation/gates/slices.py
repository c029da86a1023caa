"""Slices: a candidate that is better on the whole may be worse for one suite, agent or tenant.

Each slice of the pairs that the gate `improvement` played is tested for harm, and the tests corrected for their number.
`compared_slices` is the pure part.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from evaluation.gates.gate import Evidence
from evaluation.gates.verdict import GateResult, Verdict
from evaluation.rollouts import Pair
from evaluation.settings import GateSettings, SlicesSettings
from evaluation.statistics import holm, mcnemar_exact
from ratchet_client.events import VARIANT_MARK, Task, family

SLICES = "slices"

Labels = Mapping[str, Mapping[str, Sequence[str]]]
"""By task id: the values of each label, such as the agents that met the task in production."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of the pairs. `wins` and `losses` count families of variants: one that both sides won from is neither.

    `p_worse` is the one-sided p-value of McNemar's exact test for harm, `adjusted` the same after Holm's correction.
    """

    name: str
    tasks: int
    wins: int
    losses: int
    p_worse: float
    adjusted: float


def slices_of(task: Task, labels: Labels) -> set[str]:
    """The names of the slices that a task is in.

    By its environment, each folder of its id, the mark of its variant, and its labels.

    >>> sorted(slices_of(Task(environment="bfcl", task_id="multi_turn/train/17~base"), {}))
    ['environment bfcl', 'suite multi_turn', 'suite multi_turn/train', 'variant base']
    """
    name, _, variant = task.task_id.partition(VARIANT_MARK)
    folders = name.split("/")[:-1]
    found = {f"environment {task.environment}"}
    found |= {f"suite {'/'.join(folders[: depth + 1])}" for depth in range(len(folders))}
    found |= {f"variant {variant}"} if variant else set()
    for label, values in labels.get(task.task_id, {}).items():
        found |= {f"{label} {value}" for value in values}
    return found


def compared_slices(pairs: Sequence[Pair], labels: Labels, settings: SlicesSettings) -> list[Slice]:
    """Every slice of enough tasks, worst first. The whole is none, and slices of the same tasks are one."""
    members: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        for name in slices_of(pair.task, labels):
            members[name].append(pair)
    distinct: dict[frozenset[str], str] = {}
    for name in sorted(members):
        content = frozenset(pair.task.task_id for pair in members[name])
        if settings.min_tasks <= len(content) < len(pairs):
            distinct.setdefault(content, name)
    counted = [(name, *_families(members[name])) for name in distinct.values()]
    p_values = [mcnemar_exact(losses, wins) for _, wins, losses in counted]
    found = [
        Slice(name, len(members[name]), wins, losses, p_worse, adjusted)
        for (name, wins, losses), p_worse, adjusted in zip(counted, p_values, holm(p_values), strict=True)
    ]
    return sorted(found, key=lambda each: (each.adjusted, each.p_worse, each.name))


def _families(pairs: Sequence[Pair]) -> tuple[int, int]:
    """Families with more wins than losses, and with more losses: variants of one task are no independent evidence."""
    balance: defaultdict[str, int] = defaultdict(int)
    for pair in pairs:
        balance[family(pair.task.task_id)] += pair.is_win - pair.is_loss
    return sum(each > 0 for each in balance.values()), sum(each < 0 for each in balance.values())


class Slices:
    """The gate `slices`: it plays nothing, and holds a candidate that is significantly worse on a slice."""

    name: ClassVar[str] = SLICES
    plays: ClassVar[bool] = False

    def __init__(self, settings: GateSettings) -> None:
        self._settings = settings.slices

    async def judge(self, evidence: Evidence) -> GateResult:
        if not evidence.pairs:
            reason = "No pairs were played, so it is not known whether the candidate is worse on a slice."
            return GateResult(gate=self.name, verdict=Verdict.INCONCLUSIVE, reason=reason)
        found = compared_slices(evidence.pairs, evidence.labels, self._settings)
        harmed = [each for each in found if each.adjusted <= self._settings.alpha]
        if harmed:
            verdict = Verdict.HOLD
            reason = "The candidate is worse on " + "; ".join(map(_told, harmed)) + "."
        elif found:
            verdict = Verdict.PROMOTE
            reason = f"On none of {len(found)} slices the candidate is significantly worse; worst: {_told(found[0])}."
        else:
            verdict = Verdict.PROMOTE
            reason = f"The tasks have no slice of {self._settings.min_tasks} or more that is not all of them."
        figures: dict[str, bool | int | float | str | None] = {"slices": len(found), "harmed": len(harmed)}
        if found:
            worst = found[0]
            figures |= {"worst": worst.name, "worst_wins": worst.wins, "worst_losses": worst.losses}
            figures |= {"worst_p": worst.p_worse, "worst_p_adjusted": worst.adjusted}
        return GateResult(gate=self.name, verdict=verdict, reason=reason, figures=figures)


def _told(each: Slice) -> str:
    return (
        f"{each.name} ({each.tasks} tasks, {each.wins} won, {each.losses} lost; p = {each.adjusted:.2g} after Holm's "
        "correction)"
    )
