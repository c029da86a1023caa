"""S0: results that no honest environment returns. None is allowed, on either side: what is judged by them is not known.

A score is finite and from 0 to 1. A success has score 1 and an action that was understood. No more actions are invalid
than were taken. An action is text: half of a surrogate pair is none.
"""

import math
from collections.abc import Iterator

from evaluation.rollouts import Rollout
from evaluation.sentinels.facts import Facts, Finding
from evaluation.settings import SentinelSettings

_SMALL = 1e-6


def soundness(facts: Facts, settings: SentinelSettings) -> Finding:
    sides = (
        ("candidate", [pair.candidate for pair in facts.pairs]),
        ("champion", [pair.champion for pair in facts.pairs]),
    )
    violations = [
        f"{' and '.join(found)} in {rollout.task_id!r}, played by the {side}"
        for side, rollouts in (*sides, ("candidate", facts.unsolvable))
        for rollout in rollouts
        if (found := list(faults(rollout)))
    ]
    hits = (
        (f"S0: {len(violations)} results cannot be true (0 are allowed), such as {violations[0]}.",)
        if violations
        else ()
    )
    return Finding({"impossible_results": len(violations)}, hits)


def faults(rollout: Rollout) -> Iterator[str]:
    """Return what is wrong with a rollout.

    >>> list(faults(Rollout("a", True, 0.0, 3, 0, ())))
    ['a success with the score 0.0']
    """
    score = rollout.score
    if not math.isfinite(score) or not 0 <= score <= 1:
        yield f"the score {score!r}"
    elif rollout.success and score < 1 - _SMALL:
        yield f"a success with the score {score!r}"
    if rollout.success and rollout.steps < 1:
        yield "a success without an action"
    elif rollout.success and rollout.invalid_actions >= rollout.steps:
        yield "a success of invalid actions alone"
    if not 0 <= rollout.invalid_actions <= rollout.steps:
        yield f"{rollout.invalid_actions} invalid ones of {rollout.steps} actions"
    if rollout.actions and rollout.steps != len(rollout.actions):
        yield f"{len(rollout.actions)} actions in {rollout.steps} steps"
    if rollout.escaped_actions or any(_broken(text) for action in rollout.actions for text in action.texts()):
        yield "an action with half of a surrogate pair"


def _broken(text: str) -> bool:
    return any("\ud800" <= each <= "\udfff" for each in text)
