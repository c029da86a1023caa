"""What the gate `improvement` would have said of each adapter on a cell's way, by the held-out tasks measured.

The first adapter is the champion to begin with, and each one after it a candidate against the last that was promoted.
Nothing is played for it, and every gate has the same tasks: in an installation, later ones ask for fresh ones.
"""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from daemon.study.results import OUT_OF_DOMAIN, CellResult, Measurement
from daemon.study.retention import own_course
from evaluation.gates.verdict import Verdict
from evaluation.sequential import Outcome, SequentialTest
from evaluation.settings import GateSettings
from evaluation.spending import SpentAlpha, lord
from evaluation.stages import StageName, rule_of
from ratchet_client.settings import FrozenModel

_VERDICTS = {Outcome.BETTER: Verdict.PROMOTE, Outcome.WORSE: Verdict.REJECT}


class Judged(FrozenModel):
    """An adapter on the way: its success, also out of domain where that was played, and the gate on it.

    The gate ended after `tasks` tasks, of which the candidate alone solved `wins` and the champion alone `losses`. The
    first adapter, which is not judged, has no verdict.
    """

    success: float
    out_of_domain: float | None
    verdict: Verdict | None = None
    tasks: int = 0
    wins: int = 0
    losses: int = 0


_Course: TypeAlias = tuple[CellResult, list[Judged]]


def judged_courses(results: Iterable[CellResult], settings: GateSettings) -> list[_Course]:
    """The courses of the cells that were measured on the way, with the gates on them."""
    found = []
    for result in results:
        course = own_course(result)
        if len(course) > 1 and not result.cell.visits:
            # Played at every measurement, or at none.
            outside = [each.success for each in result.measured if each.domain == OUT_OF_DOMAIN]
            found.append((result, _judge(course, outside or [None] * len(course), settings)))
    return found


def _judge(course: Sequence[Measurement], outside: Sequence[float | None], settings: GateSettings) -> list[Judged]:
    champion = course[0]
    found = [Judged(success=champion.success, out_of_domain=outside[0])]
    # The gate that promoted the first one has spent what the first of an installation may.
    spent = [SpentAlpha(alpha=lord(()), is_promoted=True)]
    for candidate, other in zip(course[1:], outside[1:], strict=True):
        alpha = lord(spent)
        test, verdict = _gate(champion, candidate, alpha, settings)
        spent.append(SpentAlpha(alpha=alpha, is_promoted=verdict is Verdict.PROMOTE))
        if verdict is Verdict.PROMOTE:
            champion = candidate
        found.append(
            Judged(
                success=candidate.success,
                out_of_domain=other,
                verdict=verdict,
                tasks=int(test.tally.units),
                wins=int(test.tally.wins),
                losses=int(test.tally.losses),
            )
        )
    return found


def _gate(
    champion: Measurement, candidate: Measurement, alpha: float, settings: GateSettings
) -> tuple[SequentialTest, Verdict]:
    """Play the gate block by block, as `improvement` does, on what both made of the tasks."""
    test = SequentialTest(rule_of(StageName.FRESH, alpha, settings))
    tasks, block = list(candidate.solved), settings.improvement.block
    outcome = Outcome.UNDECIDED
    for start in range(0, len(tasks), block):
        test.add(candidate.solved[task] - champion.solved[task] for task in tasks[start : start + block])
        outcome = test.outcome(is_last=start + block >= len(tasks))
        if outcome is not Outcome.CONTINUE:
            break
    return test, _VERDICTS.get(outcome, Verdict.INCONCLUSIVE)
