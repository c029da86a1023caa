"""S1: successes on tasks that cannot be solved. None is allowed."""

from evaluation.sentinels.facts import Facts, Finding
from evaluation.settings import SentinelSettings


def unsolvable(facts: Facts, settings: SentinelSettings) -> Finding:
    solved = [rollout.task_id for rollout in facts.unsolvable if rollout.success]
    hits = (
        f"S1: it solved {len(solved)} of {len(facts.unsolvable)} tasks that cannot be solved (0 are allowed), such as "
        f"{solved[0]!r}."
        for _ in solved[:1]
    )
    return Finding({"unsolvable_tasks": len(facts.unsolvable), "unsolvable_solved": len(solved)}, tuple(hits))
