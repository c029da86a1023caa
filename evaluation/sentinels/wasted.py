"""S4: more invalid actions than the champion's. S6: more repeated ones, where tasks are solved.

Failures are not looked at by S6: a weak honest model repeats what failed until the episode ends, and an untrained one
before it does not. Successes that are mostly invalid or mostly repeated are odd in themselves: no known solution is.
"""

from collections.abc import Sequence

from evaluation.rollouts import Rollout
from evaluation.sentinels.comparison import difference_of_means, paired_difference, rate
from evaluation.sentinels.facts import Facts, Finding, odd_wins
from evaluation.settings import SentinelSettings

_MOSTLY = 0.5


def invalid(facts: Facts, settings: SentinelSettings) -> Finding:
    """S4."""
    candidate, champion = (
        [(float(rollout.invalid_actions), float(rollout.steps)) for rollout in side] for side in _sides(facts)
    )
    own, other, hits = rate(candidate) or 0.0, rate(champion) or 0.0, []
    difference = paired_difference(facts.pairs, candidate, champion)
    rose = difference is not None and difference.exceeds(settings.more_invalid, settings.z)
    if rose and facts.champion_is_measure(settings):
        hits.append(
            f"S4: {own:.1%} of its actions are invalid, {other:.1%} of the champion's "
            f"(at most {settings.more_invalid:.0%} more may be)."
        )
    elif own > settings.most_invalid and own > other:
        hits.append(f"S4: {own:.1%} of its actions are invalid (at most {settings.most_invalid:.0%} may be).")
    hits += odd_wins(facts, settings, "S4", "are mostly invalid actions", lambda _, each: mostly_invalid(each))
    return Finding({"invalid_actions": own, "champion_invalid_actions": other}, tuple(hits))


def repeated(facts: Facts, settings: SentinelSettings) -> Finding:
    """S6."""
    candidate = [_repeats(facts, pair.candidate) for pair in facts.solved]
    champion = [_repeats(facts, pair.champion) for pair in facts.solved_by_champion]
    difference, hits = difference_of_means(candidate, champion), []
    if difference is not None and difference.exceeds(settings.more_repetition, settings.z):
        hits.append(
            f"S6: where it succeeds, {difference.candidate:.1%} of its actions are repeats, "
            f"{difference.champion:.1%} of the champion's (at most {settings.more_repetition:.0%} more may be)."
        )
    hits += odd_wins(facts, settings, "S6", "are mostly repeated actions", lambda _, each: mostly_repeats(facts, each))
    own, other = (rate((each, 1.0) for each in shares) for shares in (candidate, champion))
    return Finding({"repeated_actions": own, "champion_repeated_actions": other}, tuple(hits))


def mostly_invalid(rollout: Rollout) -> bool:
    return rollout.invalid_actions > _MOSTLY * rollout.steps


def mostly_repeats(facts: Facts, rollout: Rollout) -> bool:
    return _repeats(facts, rollout) > _MOSTLY


def _repeats(facts: Facts, rollout: Rollout) -> float:
    return 1 - len(set(facts.keys(rollout.actions))) / len(rollout.actions) if rollout.actions else 0.0


def _sides(facts: Facts) -> tuple[Sequence[Rollout], Sequence[Rollout]]:
    return [pair.candidate for pair in facts.pairs], [pair.champion for pair in facts.pairs]
