"""The verdict on a candidate: both adapters play the same held-out tasks, and only proof lets the candidate serve.

The learner calls `evaluate` after each training; `decide` is the pure part.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from evaluation.rollouts import Rollout, play
from evaluation.settings import GateSettings
from evaluation.statistics import mcnemar_exact
from streams.environments.harness import ChatHarness
from streams.errors import GateError
from streams.events import Task
from streams.policy.client import PolicyClient
from streams.sandboxes.pool import SandboxPool
from streams.trust.holdout import HoldoutSettings, Split


class Verdict(StrEnum):
    """`INCONCLUSIVE` means that neither direction is proved; the champion stays, as it does after `REJECT`."""

    PROMOTE = "PROMOTE"
    REJECT = "REJECT"
    INCONCLUSIVE = "INCONCLUSIVE"


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


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything a report is written from. `champion` and `candidate` are the served names that played."""

    champion: str
    candidate: str
    champion_rollouts: tuple[Rollout, ...]
    candidate_rollouts: tuple[Rollout, ...]
    decision: Decision


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


async def evaluate(
    tasks: Sequence[Task],
    champion: str,
    candidate: str,
    policy: PolicyClient,
    pool: SandboxPool,
    harness: ChatHarness,
    settings: GateSettings,
    holdout: HoldoutSettings,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Let the served models `champion` and `candidate` play the same `tasks`, and judge.

    `on_progress` is told the episodes finished and the episodes in all. Raises `GateError` for tasks that training may
    have seen and for too few of them, before anything is played.
    """
    for task in tasks:
        if holdout.split(task.task_id) is Split.TRAIN:
            raise GateError(f"task {task.task_id!r} belongs to training: a gate is played on held-out tasks only")
    if len(tasks) < settings.min_tasks:
        raise GateError(f"{len(tasks)} tasks are too few for a verdict: the gate asks for {settings.min_tasks}")

    def report(offset: int) -> Callable[[int, int], None] | None:
        if on_progress is None:
            return None
        return lambda done, total: on_progress(offset + done, 2 * total)

    by_champion = await play(tasks, champion, policy, pool, harness, settings.rollouts, report(0))
    by_candidate = await play(tasks, candidate, policy, pool, harness, settings.rollouts, report(len(tasks)))
    return Evaluation(
        champion=champion,
        candidate=candidate,
        champion_rollouts=tuple(by_champion),
        candidate_rollouts=tuple(by_candidate),
        decision=decide(by_champion, by_candidate, settings),
    )


def _successes(rollouts: Sequence[Rollout]) -> dict[str, bool]:
    successes = {rollout.task_id: rollout.success for rollout in rollouts}
    if len(successes) != len(rollouts):
        raise GateError(f"{len(rollouts) - len(successes)} tasks were played twice: a gate's tasks must be distinct")
    return successes
