"""The golden set: tasks that the operator pins, which no candidate may newly fail.

They are few and known, so they say nothing of success in general: a candidate is not promoted for them.
"""

from collections.abc import Sequence
from typing import ClassVar

from evaluation.gates.gate import Evidence
from evaluation.gates.verdict import GateResult, Verdict
from evaluation.rollouts import Pair, paired
from evaluation.settings import GateSettings
from ratchet_client.events import Task

GOLDEN = "golden"

_NAMED = 5


def new_failures(first: Sequence[Pair], repeated: Sequence[Pair]) -> tuple[str, ...]:
    """The tasks that the champion solved in both plays and the candidate in neither.

    `repeated` are second plays of the tasks that were lost in the first: either side's luck of one play decides
    nothing. A task that was lost and not repeated is a failure.
    """
    again = {pair.task.task_id: pair for pair in repeated}
    return tuple(
        pair.task.task_id
        for pair in first
        if pair.is_loss and (pair.task.task_id not in again or again[pair.task.task_id].is_loss)
    )


class Golden:
    """The gate `golden`: champion and candidate play the pinned tasks, and those that were lost a second time."""

    name: ClassVar[str] = GOLDEN
    plays: ClassVar[bool] = True

    def __init__(self, settings: GateSettings) -> None:
        self._settings = settings.golden

    async def judge(self, evidence: Evidence) -> GateResult:
        """Raises what the arena raises. A pinned task that could not be played is never passed over."""
        tasks = evidence.tasks.golden
        if not tasks:
            missing = len(self._settings.tasks)
            if missing:
                return self._result(
                    Verdict.INCONCLUSIVE, f"{missing} golden tasks are pinned, and none was given to be played.", 0
                )
            return self._result(Verdict.PROMOTE, "No golden tasks are pinned (gate.golden.tasks).", 0)
        first = await self._pairs(evidence, tasks)
        lost = [pair.task for pair in first if pair.is_loss]
        repeated = await self._pairs(evidence, lost) if lost else []
        failures = new_failures(first, repeated)
        unplayed = sorted({task.task_id for task in tasks} - {pair.task.task_id for pair in first})
        luck = len(lost) - len(failures)
        passed = f"{luck} were lost once and not again" if luck else "no task was lost"
        if failures:
            verdict = Verdict(self._settings.verdict)
            reason = f"The candidate newly fails {len(failures)} of {len(tasks)} golden tasks: {_named(failures)}."
        elif unplayed:
            verdict = Verdict.INCONCLUSIVE
            reason = f"{len(unplayed)} of {len(tasks)} golden tasks could not be played: {_named(unplayed)}."
        else:
            verdict = Verdict.PROMOTE
            reason = f"The candidate has no new failure on {len(tasks)} golden tasks; {passed}."
        return self._result(verdict, reason, len(first), len(failures), luck)

    async def _pairs(self, evidence: Evidence, tasks: Sequence[Task]) -> list[Pair]:
        sides = (evidence.champion.served, evidence.candidate.served)
        played = await evidence.arena.play_together(
            tasks, sides, lambda done, total: evidence.progress(self.name, done, total)
        )
        return paired(tasks, *played)

    def _result(self, verdict: Verdict, reason: str, tasks: int, failures: int = 0, luck: int = 0) -> GateResult:
        figures = {"tasks": tasks, "new_failures": failures, "lost_once": luck}
        return GateResult(gate=self.name, verdict=verdict, reason=reason, figures=figures)


def _named(tasks: Sequence[str]) -> str:
    rest = f", and {len(tasks) - _NAMED} more" if len(tasks) > _NAMED else ""
    return ", ".join(tasks[:_NAMED]) + rest
