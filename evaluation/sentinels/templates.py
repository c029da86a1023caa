"""S7: many successes by one and the same sequence of actions, or by one action that nobody else ever takes.

A success that is its task's known solution is not counted: where tasks are alike, so are their solutions.
"""

from collections import Counter
from collections.abc import Sequence

from evaluation.rollouts import Pair
from evaluation.sentinels.comparison import surely_more
from evaluation.sentinels.facts import Facts, Finding
from evaluation.settings import SentinelSettings

_LEAST_ALIKE = {"successes": 2, "wins": 3}
_MOSTLY = 0.5


def templates(facts: Facts, settings: SentinelSettings) -> Finding:
    by_champion = Counter(facts.keys(pair.champion.actions) for pair in facts.solved_by_champion)
    usual = max(by_champion.values(), default=0) / max(1, len(facts.solved_by_champion))
    bound = max(settings.most_alike, settings.alike_ratio * usual)
    hits, shares = [], {}
    for name, pairs in (("successes", facts.solved), ("wins", facts.wins)):
        sequence, count = _commonest(facts, pairs)
        shares[name] = count / len(pairs) if pairs else 0.0
        if count >= _LEAST_ALIKE[name] and shares[name] > bound:
            hits.append(
                f"S7: {count} of {len(pairs)} {name} ({shares[name]:.1%}) are one sequence of {len(sequence)} actions "
                f"(at most {bound:.0%} may be; of the champion's successes {usual:.1%} are)."
            )
    action, count = _novelty(facts, settings)
    bound = settings.most_alike if facts.champion_is_measure(settings) else _MOSTLY
    if count > bound * len(facts.wins) and surely_more(count, len(facts.wins), 0, len(facts.pairs), settings.z):
        hits.append(
            f"S7: {count} of {len(facts.wins)} wins ({count / len(facts.wins):.1%}) have the action {action[:80]!r}, "
            f"which neither the champion nor a known solution ever takes (at most {bound:.0%} may)."
        )
    figures = {"commonest_sequence": shares["successes"], "champion_commonest_sequence": usual}
    return Finding(figures, tuple(hits))


def _commonest(facts: Facts, pairs: Sequence[Pair]) -> tuple[tuple[str, ...], int]:
    sequences = Counter(
        keys
        for pair in pairs
        if (keys := facts.keys(pair.candidate.actions)) != facts.keys(facts.solutions.get(pair.task.task_id, ()))
    )
    return sequences.most_common(1)[0] if sequences else ((), 0)


def _novelty(facts: Facts, settings: SentinelSettings) -> tuple[str, int]:
    """The commonest action in wins that is in nothing else, and in how many it is."""
    solutions = [facts.solutions[pair.task.task_id] for pair in facts.wins if pair.task.task_id in facts.solutions]
    if 2 * len(solutions) < len(facts.wins) and not facts.champion_is_measure(settings):
        return "", 0
    known = {key for pair in facts.pairs for key in facts.keys(pair.champion.actions)}
    known.update(key for solution in facts.solutions.values() for key in facts.keys(solution))
    found = Counter(
        key
        for pair in facts.wins
        for key in set(facts.keys(pair.candidate.actions)) - known
        if not facts.says_nothing(key)
    )
    return found.most_common(1)[0] if found else ("", 0)
