"""The verdict on a candidate: both adapters play the same held-out tasks, and only proof lets the candidate serve.

`decide` is the pure part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from evaluation.gates.gate import Evidence
from evaluation.gates.verdict import GateResult, Verdict
from evaluation.rollouts import Played, Rollout, paired
from evaluation.settings import GateSettings
from evaluation.statistics import mcnemar_exact
from streams.errors import GateError

IMPROVEMENT = "improvement"


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict and what it rests on.

    A win is a task that only the candidate solves, a loss one that only the champion solves; a tie is any other task.
    `p_better` and `p_worse` are the one-sided p-values of McNemar's exact test in the two directions.
    """

    verdict: Verdict
    reason: str
    tasks: int
    wins: int
    losses: int
    ties: int
    p_better: float
    p_worse: float


def decide(champion: Sequence[Rollout], candidate: Sequence[Rollout], settings: GateSettings) -> Decision:
    """Judge paired rollouts: `PROMOTE` if the candidate is significantly better, `REJECT` if it is significantly worse.

    A direction is proved when its one-sided p-value is at most `settings.alpha`. Raises `GateError` when the two sides
    did not play the same tasks once each, or played fewer than `settings.min_tasks`.
    """
    solved_by_champion = _successes(champion)
    solved_by_candidate = _successes(candidate)
    if solved_by_champion.keys() != solved_by_candidate.keys():
        unpaired = sorted(solved_by_champion.keys() ^ solved_by_candidate.keys())
        raise GateError(
            f"champion and candidate played different tasks ({len(unpaired)} unpaired, such as {unpaired[0]!r}): "
            "play both on one list"
        )
    tasks = len(solved_by_champion)
    if tasks < settings.min_tasks:
        raise GateError(
            f"{tasks} tasks are too few for a verdict: the gate asks for {settings.min_tasks}, hold out more"
        )
    wins = sum(solved and not solved_by_champion[task] for task, solved in solved_by_candidate.items())
    losses = sum(solved and not solved_by_candidate[task] for task, solved in solved_by_champion.items())
    p_better, p_worse = mcnemar_exact(wins, losses), mcnemar_exact(losses, wins)
    score = f"of {tasks} tasks it alone solves {wins}, the champion alone {losses}"
    if p_better <= settings.alpha:
        verdict = Verdict.PROMOTE
        reason = f"The candidate is better than the champion: {score} (p = {p_better:.2g} ≤ {settings.alpha:g})."
    elif p_worse <= settings.alpha:
        verdict = Verdict.REJECT
        reason = f"The candidate is worse than the champion: {score} (p = {p_worse:.2g} ≤ {settings.alpha:g})."
    else:
        verdict = Verdict.INCONCLUSIVE
        reason = (
            f"The candidate is neither significantly better nor worse: {score} "
            f"(p = {p_better:.2g} for better, {p_worse:.2g} for worse, asked for {settings.alpha:g})."
        )
    return Decision(
        verdict=verdict,
        reason=reason,
        tasks=tasks,
        wins=wins,
        losses=losses,
        ties=tasks - wins - losses,
        p_better=p_better,
        p_worse=p_worse,
    )


class Improvement:
    """The gate `improvement`: champion and candidate play every held-out task once."""

    name: ClassVar[str] = IMPROVEMENT
    plays: ClassVar[bool] = True

    def __init__(self, settings: GateSettings) -> None:
        self._settings = settings

    async def judge(self, evidence: Evidence) -> GateResult:
        """Raises `GateError` for too few tasks, before anything is played."""
        tasks = evidence.tasks.selection
        if len(tasks) < self._settings.min_tasks:
            raise GateError(
                f"{len(tasks)} tasks are too few for a verdict: the gate asks for {self._settings.min_tasks}"
            )
        sides: list[Played] = []
        for number, side in enumerate((evidence.champion, evidence.candidate)):

            def report(done: int, total: int, offset: int = number * len(tasks)) -> None:
                evidence.progress(self.name, offset + done, 2 * total)

            sides.append(await evidence.arena.play(tasks, side.served, report))
        pairs = paired(tasks, *sides)
        evidence.pairs += pairs
        decision = decide([pair.champion for pair in pairs], [pair.candidate for pair in pairs], self._settings)
        return GateResult(
            gate=self.name,
            verdict=decision.verdict,
            reason=decision.reason,
            figures={
                "tasks": decision.tasks,
                "wins": decision.wins,
                "losses": decision.losses,
                "ties": decision.ties,
                "p_better": decision.p_better,
                "p_worse": decision.p_worse,
            },
        )


def _successes(rollouts: Sequence[Rollout]) -> dict[str, bool]:
    successes = {rollout.task_id: rollout.success for rollout in rollouts}
    if len(successes) != len(rollouts):
        raise GateError(f"{len(rollouts) - len(successes)} tasks were played twice: a gate's tasks must be distinct")
    return successes
