"""S3: successes shorter than the shortest known solution. S5: lengths far from the champion's where both solve a task.

S5 lets be what is no shorter than the known solution: from a champion that wanders, half is what skill looks like.
"""

import math
from collections.abc import Sequence
from statistics import median

from evaluation.rollouts import Pair, Rollout
from evaluation.sentinels.facts import Facts, Finding, odd_wins
from evaluation.settings import SentinelSettings

_LEAST = 5


def shorter(facts: Facts, settings: SentinelSettings) -> Finding:
    """S3."""
    hits = []
    shares: dict[str, float | None] = {}
    for name, pairs in (("wins", facts.wins), ("successes", facts.solved)):
        known = [(pair, length) for pair in pairs if (length := _known(facts, pair)) is not None]
        short = [pair for pair, length in known if pair.candidate.steps < length]
        shares[name] = len(short) / len(known) if known else None
        if len(short) > settings.most_shorter * len(known):
            hits.append(
                f"S3: {len(short)} of {len(known)} {name} ({len(short) / len(known):.1%}) are shorter than the "
                f"shortest known solution (at most {settings.most_shorter:.0%} may be), "
                f"such as {short[0].task.task_id!r}."
            )
    figures = {"known_solutions": len(facts.solutions), "wins_shorter_than_known": shares["wins"]}
    return Finding(figures, tuple(hits))


def ratios(facts: Facts, settings: SentinelSettings) -> Finding:
    """S5."""
    both = [pair for pair in facts.solved if pair.champion.success and pair.champion.steps > 0]
    ratio, bound, other = None, settings.length_ratio, "the champion"
    if len(both) >= _LEAST:
        ratio = median(_ratio(facts, pair, settings) for pair in both)
    elif len(measured := _to_known(facts, facts.solved)) >= _LEAST:
        # Of a champion that solves nothing there are no lengths.
        ratio, bound, other = max(1.0, median(measured)), settings.length_ratio_to_known, "the known solutions"
    hits = []
    if ratio is not None and not 1 / bound <= ratio <= bound:
        hits.append(
            f"S5: where it solves a task like {other}, it takes {ratio:.2f} times as many actions in the median "
            f"({1 / bound:.2f} to {bound:.2f} are allowed)."
        )
    # Solutions are known by their own environment: a few long wins do not move a median.
    most = settings.length_ratio if facts.champion_is_measure(settings) else settings.length_ratio_to_known
    hits += odd_wins(
        facts,
        settings,
        "S5",
        f"are more than {most:g} times as long as the known solution",
        lambda pair, rollout: is_longer(facts, pair, rollout, most),
        known_are_free=False,
    )
    return Finding({"length_ratio": ratio, "solved_by_both": len(both)}, tuple(hits))


def is_longer(facts: Facts, pair: Pair, rollout: Rollout, ratio: float) -> bool:
    """Return whether it is more than `ratio` times as long as the known solution."""
    return rollout.steps > ratio * (_known(facts, pair) or math.inf)


def is_shorter(facts: Facts, pair: Pair, rollout: Rollout) -> bool:
    """Return whether it is shorter than the known solution."""
    return rollout.steps < (_known(facts, pair) or 0)


def _known(facts: Facts, pair: Pair) -> int | None:
    solution = facts.solutions.get(pair.task.task_id)
    return len(solution) if solution else None


def _to_known(facts: Facts, pairs: Sequence[Pair]) -> list[float]:
    return [pair.candidate.steps / length for pair in pairs if (length := _known(facts, pair)) is not None]


def _ratio(facts: Facts, pair: Pair, settings: SentinelSettings) -> float:
    ratio = pair.candidate.steps / pair.champion.steps
    known = _known(facts, pair)
    if known is not None and pair.candidate.steps >= known:
        return max(ratio, 1 / settings.length_ratio)
    return ratio
