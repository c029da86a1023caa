"""No forgetting: on tasks that no gate played before, the candidate is not inferior to the base model and the anchor.

A sequence of small, unnoticed losses would pass every comparison with the champion alone. `decide` is the pure part.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from evaluation.gates.gate import Competitor, Evidence
from evaluation.gates.verdict import GateResult, Verdict
from evaluation.noninferiority import e_value, power, tango_test, tasks_for_power
from evaluation.rollouts import Rollout, paired
from evaluation.settings import GateSettings, NoForgettingSettings
from evaluation.statistics import mcnemar_exact
from ratchet_client.events import Task, family
from streams.errors import GateError

NO_FORGETTING = "no_forgetting"

_BLOCK = 32
_POWER = 0.8


@dataclass(frozen=True, slots=True)
class Compared:
    """The candidate against one reference: the tasks that both played, and those that only one of them solved."""

    reference: str
    tasks: int
    wins: int
    losses: int

    def is_proved_early(self, settings: NoForgettingSettings) -> bool:
        """True once the e-process proves non-inferiority at half of alpha; it may be looked at after every block."""
        return self.evidence(settings) >= 2 / settings.alpha

    def evidence(self, settings: NoForgettingSettings) -> float:
        """The value of the e-process for non-inferiority."""
        return e_value(self.tasks, self.wins, self.losses, settings.margin)

    def p_inferior(self, settings: NoForgettingSettings) -> float:
        """The p-value of the score test, which is looked at once, at the end."""
        if not self.tasks:
            return 1.0
        return tango_test(self.tasks, self.wins, self.losses, settings.margin)

    def is_proved(self, settings: NoForgettingSettings) -> bool:
        """True where either test proves it, at half of alpha each. The score test is not for a few tasks."""
        enough = self.tasks >= settings.min_tasks
        return self.is_proved_early(settings) or (enough and self.p_inferior(settings) <= settings.alpha / 2)

    def power(self, settings: NoForgettingSettings) -> float:
        """The chance that so many tasks prove it of a candidate that is as good as the reference."""
        discordance = (self.wins + self.losses) / max(1, self.tasks)
        return power(self.tasks, discordance, settings.margin, settings.alpha / 2)

    def tasks_wanted(self, settings: NoForgettingSettings) -> int:
        """The tasks that prove it of such a candidate with a power of 0.8."""
        discordance = (self.wins + self.losses) / max(1, self.tasks)
        return tasks_for_power(_POWER, discordance, settings.margin, settings.alpha / 2)

    def told(self) -> str:
        return f"of {self.tasks} tasks it alone solves {self.wins}, the {self.reference} alone {self.losses}"


def decide(compared: Sequence[Compared], settings: NoForgettingSettings) -> tuple[Verdict, str]:
    """The verdict, and its reason.

    `PROMOTE` for a candidate that is proved non-inferior to each reference, `REJECT` for one that is significantly
    worse than a reference without that proof. With fewer than `min_tasks` tasks and no proof a person decides.
    Otherwise `require` does.
    """
    points = f"{100 * settings.margin:g} points"
    for each in compared:
        p_worse = mcnemar_exact(each.losses, each.wins)
        if p_worse <= settings.alpha / len(compared) and not each.is_proved(settings):
            return (
                Verdict.REJECT,
                f"The candidate is worse than the {each.reference}: {each.told()} (p = {p_worse:.2g}).",
            )
    unproved = [each for each in compared if not each.is_proved(settings)]
    if compared and not unproved:
        told = "; ".join(f"{each.told()}" for each in compared)
        return Verdict.PROMOTE, f"The candidate is at most {points} worse than {_all(compared)}: {told}."
    fewest = min((each.tasks for each in compared), default=0)
    if fewest < settings.min_tasks:
        reason = (
            f"It is not known whether the candidate forgot anything: {fewest} confirmation tasks were played, and "
            f"{settings.min_tasks} are the least (gate.no_forgetting.min_tasks). Hold more tasks out, or let a person "
            "decide."
        )
        return Verdict.INCONCLUSIVE if settings.require == "proof" else Verdict.HOLD, reason
    worst = max(unproved, key=lambda each: each.p_inferior(settings))
    able = worst.power(settings)
    shown = (
        f"It is not proved that the candidate is at most {points} worse than the {worst.reference}: {worst.told()} "
        f"(p = {worst.p_inferior(settings):.2g}, asked for {settings.alpha / 2:g})"
    )
    if settings.require == "proof" or (settings.require == "when_possible" and able >= _POWER):
        return Verdict.INCONCLUSIVE, f"{shown}."
    return Verdict.PROMOTE, (
        f"{shown}. It is not significantly worse, and so few tasks prove it of an equal candidate with a power of only "
        f"{able:.2f}: that would take {worst.tasks_wanted(settings)}."
    )


@dataclass(slots=True)
class _Reference:
    name: str
    side: Competitor
    results: list[int] = field(default_factory=list)

    def compared(self) -> Compared:
        return Compared(self.name, len(self.results), self.results.count(1), self.results.count(-1))


class NoForgetting:
    """The gate `no_forgetting`: candidate, base and anchor play confirmation tasks, fresh ones first.

    One task of a family of variants is played. A reference is played no more once the proof against it is there.
    """

    name: ClassVar[str] = NO_FORGETTING
    plays: ClassVar[bool] = True

    def __init__(self, settings: GateSettings) -> None:
        self._settings = settings.no_forgetting

    async def judge(self, evidence: Evidence) -> GateResult:
        """Raises what the arena raises, and `GateError` for an anchor that could not be loaded."""
        if evidence.anchor.missing:
            raise GateError(
                f"the anchor {evidence.anchor.adapter[:12]} could not be loaded: {evidence.anchor.missing}. Restore "
                "its folder, or name another by `ratchet anchor set`"
            )
        tasks = self._tasks(evidence)
        references = _references(evidence)
        candidate: list[Rollout] = []
        for start in range(0, len(tasks), _BLOCK):
            block = tasks[start : start + _BLOCK]
            live = [each for each in references if not each.compared().is_proved_early(self._settings)]
            if not live:
                break
            evidence.progress(self.name, start, len(tasks))
            sides = (evidence.candidate.served, *(reference.side.served for reference in live))
            own, *others = await evidence.arena.play_together(block, sides)
            candidate += own
            for reference, other in zip(live, others, strict=True):
                reference.results += [pair.is_win - pair.is_loss for pair in paired(block, other, own)]
        evidence.progress(self.name, len(tasks), len(tasks))
        compared = [reference.compared() for reference in references]
        verdict, reason = decide(compared, self._settings)
        played = [rollout.task_id for rollout in candidate]
        unplayed = evidence.tasks.unplayed()
        fresh = sum(task in unplayed for task in played)
        if fresh < len(played):
            reason += f" {len(played) - fresh} of these tasks are not fresh: earlier gates played them."
        return GateResult(
            gate=self.name, verdict=verdict, reason=reason, figures=self._figures(compared, candidate, fresh)
        )

    def _tasks(self, evidence: Evidence) -> list[Task]:
        """Return what this trial has not played yet, one task of each family."""
        played = {family(pair.task.task_id) for pair in evidence.pairs}
        tasks: dict[str, Task] = {}
        for task in evidence.tasks.confirmation:
            if family(task.task_id) not in played:
                tasks.setdefault(family(task.task_id), task)
        return list(tasks.values())[: self._settings.tasks]

    def _figures(
        self, compared: Sequence[Compared], candidate: Sequence[Rollout], fresh: int
    ) -> dict[str, bool | int | float | str | None]:
        figures: dict[str, bool | int | float | str | None] = {
            "tasks": len(candidate),
            "fresh_tasks": fresh,
            "margin": self._settings.margin,
            "candidate_success": _share(candidate),
        }
        for each in compared:
            name = each.reference.replace(" ", "_")
            figures |= {
                f"tasks_with_{name}": each.tasks,
                f"wins_over_{name}": each.wins,
                f"losses_to_{name}": each.losses,
                f"p_inferior_to_{name}": each.p_inferior(self._settings),
                f"e_value_{name}": each.evidence(self._settings),
                f"power_{name}": each.power(self._settings),
            }
        return figures


def _references(evidence: Evidence) -> list[_Reference]:
    """The base and the anchor; one where they are the same adapter, so that it is not played twice."""
    if evidence.anchor.adapter == evidence.base.adapter:
        return [_Reference("base and anchor", evidence.base)]
    return [_Reference("base", evidence.base), _Reference("anchor", evidence.anchor)]


def _share(rollouts: Sequence[Rollout]) -> float | None:
    return sum(rollout.success for rollout in rollouts) / len(rollouts) if rollouts else None


def _all(compared: Sequence[Compared]) -> str:
    return " and ".join(f"the {each.reference}" for each in compared)
