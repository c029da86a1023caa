"""The gate `improvement`: both sides play held-out tasks block by block, until one is proved better or it is no use.

The test is in `evaluation/sequential.py`, the choice of tasks in `evaluation/stages.py`. `judged` is the pure part.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import structlog

from evaluation.agreement import Agreement
from evaluation.gates.gate import Evidence, Progress
from evaluation.gates.verdict import GateResult, Verdict
from evaluation.power import Expected
from evaluation.rollouts import paired
from evaluation.sequential import Outcome, SequentialTest
from evaluation.settings import GateSettings
from evaluation.stages import ENOUGH_POWER, Plan, Stage, StageName, planned
from evaluation.statistics import mcnemar_exact
from evaluation.units import in_keyed_order, unit_results, units_of
from streams.errors import GateError

IMPROVEMENT = "improvement"
# Gates that tell how two adapters play today.
_RECENT = 20
# Evidence is a number that may be too large for a float.
_MOST_LOG = 690.0

log = structlog.get_logger()


def judged(
    plan: Plan,
    stage: Stage,
    test: SequentialTest,
    outcome: Outcome,
    note: str = "",
    on_used_list: Verdict = Verdict.HOLD,
) -> GateResult:
    """The verdict of a gate that ended in `stage` with `outcome`, and what it rests on.

    A win is a unit in which the candidate did better, a loss one in which the champion did; others are ties. The
    p-values are those of McNemar's exact test, where there is one; only the last look may be judged by them. Proof on a
    used list is `on_used_list`.
    """
    tally, rule = test.tally, test.rule
    units, wins, losses = int(tally.units), int(tally.wins), int(tally.losses)
    better, worse = (math.exp(min(float(value), _MOST_LOG)) for value in (tally.log_better(), tally.log_worse()))
    is_exact = float(rule.exact) > 0
    score = f"of {units} tasks it alone solves {wins}, the champion alone {losses}"
    if not is_exact:
        score = f"of {units} units it does better in {wins}, the champion in {losses}"
    evidence = f"evidence {better:.2g}, asked for {_asked(float(rule.better))}"
    if is_exact:
        evidence += f"; p = {mcnemar_exact(wins, losses):.2g}, asked for {float(rule.exact):.2g} at the last task"
    where = "" if stage.name in (StageName.FRESH, StageName.USED) else f" ({stage.name.value})"
    verdict, said = Verdict.INCONCLUSIVE, "is neither significantly better nor worse"
    if outcome is Outcome.BETTER and stage is plan.stages[-1] and stage.name is not StageName.SCREENING:
        verdict = on_used_list if stage.name is StageName.USED else Verdict.PROMOTE
        said = "is better than the champion"
    elif outcome is Outcome.WORSE:
        verdict, said = Verdict.REJECT, "is worse than the champion"
        evidence = f"evidence {worse:.2g} against it, asked for {_asked(rule.worse)}"
    elif outcome is Outcome.FUTILE:
        said = f"is not better by {plan.gain:g}, so the gate stopped"
    return GateResult(
        gate=IMPROVEMENT,
        verdict=verdict,
        reason=f"The candidate {said}{where}: {score} ({evidence}).{note}",
        figures={
            "stage": stage.name.value,
            "tasks": units,
            "wins": wins,
            "losses": losses,
            "ties": units - wins - losses,
            "p_better": mcnemar_exact(wins, losses) if is_exact else None,
            "p_worse": mcnemar_exact(losses, wins) if is_exact else None,
            "evidence_better": better,
            "evidence_worse": worse,
            "mean_difference": float(tally.mean()),
            "available": len(stage.units),
            "gain": plan.gain,
            "power": plan.power,
        },
    )


class Improvement:
    """The gate `improvement`. It spends the alpha of the evidence, and no more, however often it looks."""

    name: ClassVar[str] = IMPROVEMENT
    plays: ClassVar[bool] = True

    def __init__(self, settings: GateSettings) -> None:
        self._settings = settings

    async def judge(self, evidence: Evidence) -> GateResult:
        """Raises `GateError` for too few tasks, before anything is played."""
        plan, title = self._plan(evidence), self.name
        note = _note(plan, evidence)
        if plan.power < ENOUGH_POWER:
            title += f" (power {plan.power:.2f} for +{plan.gain:g})"
            log.warning("the gate has little power", power=round(plan.power, 3), gain=plan.gain, remedy=note.strip())
        told = _Told(evidence.progress, title, 2 * sum(len(unit.tasks) for each in plan.stages for unit in each.units))
        for stage in plan.stages:
            before = len(evidence.pairs)
            test, outcome = await self._play(stage, evidence, told)
            if outcome is not Outcome.BETTER:
                break
        told.end()
        result = judged(plan, stage, test, outcome, note, Verdict(self._settings.improvement.used_list))
        pairs = evidence.pairs[before:]
        more = {
            "alpha": evidence.alpha,
            "episodes": told.done,
            "both_solved": sum(pair.champion.success and pair.candidate.success for pair in pairs),
            "gates_before": evidence.tasks.played,
        }
        return result.model_copy(update={"figures": result.figures | more})

    def _plan(self, evidence: Evidence) -> Plan:
        selection, others = (
            in_keyed_order(units_of(tasks), evidence.holdout.key, evidence.candidate.adapter)
            for tasks in (evidence.tasks.selection, evidence.tasks.confirmation)
        )
        if len(evidence.tasks.selection) < self._settings.min_tasks:
            raise GateError(
                f"{len(evidence.tasks.selection)} tasks are too few for a verdict: the gate asks for "
                f"{self._settings.min_tasks}, hold out more"
            )
        unplayed = evidence.tasks.unplayed()
        fresh, confirmation = (
            [unit for unit in units if all(task.task_id in unplayed for task in unit.tasks)]
            for units in (selection, others)
        )
        return planned(selection, fresh, confirmation, evidence.alpha, self._settings, evidence.expected)

    async def _play(self, stage: Stage, evidence: Evidence, told: "_Told") -> tuple[SequentialTest, Outcome]:
        own, test, outcome = self._settings.improvement, SequentialTest(stage.rule), Outcome.CONTINUE
        for start in range(0, len(stage.units), own.block):
            block = stage.units[start : start + own.block]
            tasks = tuple(task for unit in block for task in unit.tasks)
            sides = (evidence.champion.served, evidence.candidate.served)
            pairs = paired(tasks, *await evidence.arena.play_together(tasks, sides, told.report))
            told.done += 2 * len(tasks)
            evidence.pairs += pairs
            test.add(unit_results(pairs, own.measure))
            outcome = test.outcome(is_last=start + own.block >= len(stage.units))
            if outcome is not Outcome.CONTINUE:
                break
        return test, outcome


def expected_of(results: Sequence[GateResult]) -> Expected:
    """Return how two adapters play, after the newest of these results; the oldest come first.

    Those of graded units are passed over: their wins are not tasks that were solved.
    """
    own = [
        result.figures
        for result in results
        if result.gate == IMPROVEMENT and result.figures.get("p_better") is not None
    ]
    counts = [[figures.get(name) for name in ("both_solved", "wins", "losses", "tasks")] for figures in own]
    whole = [[int(count) for count in each if isinstance(count, int)] for each in counts[-_RECENT:]]
    return Expected.measured(sum((_agreement(*each) for each in whole if len(each) == 4), Agreement()))


def _agreement(both: int, wins: int, losses: int, tasks: int) -> Agreement:
    return Agreement(both=both, first_only=losses, second_only=wins, neither=tasks - both - wins - losses)


@dataclass(slots=True)
class _Told:
    """The progress of a gate that may end at any block; `done` counts the episodes of finished blocks."""

    progress: Progress
    title: str
    total: int
    done: int = 0

    def __post_init__(self) -> None:
        self.progress(self.title, 0, self.total)

    def report(self, finished: int, _: int) -> None:
        self.progress(self.title, self.done + finished, self.total)

    def end(self) -> None:
        self.progress(self.title, self.done, self.done)


def _asked(level: float) -> str:
    """The evidence that a level asks for."""
    return f"{1 / level:.2g}" if level > 0 else "more than there can be: no alpha is left"


def _note(plan: Plan, evidence: Evidence) -> str:
    """Reservations that a reader of the verdict must know, as sentences after a space."""
    note = ""
    if plan.power < ENOUGH_POWER:
        units = ", then ".join(str(len(stage.units)) for stage in plan.stages)
        note += (
            f" The power for a gain of {plan.gain:g} with {units} tasks at alpha {evidence.alpha:.2g} is only "
            f"{plan.power:.2f}: hold out more tasks."
        )
    if plan.stages[-1].name is StageName.USED:
        note += (
            f" {evidence.tasks.played} gates played this list before, and too few fresh tasks are left to confirm: "
            "success on it may be overstated."
        )
    return note
