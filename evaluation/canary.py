"""Judges a canary: episodes that the candidate answered beside those that the champion answered meanwhile. Pure.

`daemon/serving/canary.py` asks it whenever outcomes may have come.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from math import sqrt

from scipy.stats import fisher_exact

from evaluation.canary_figures import CanaryFigures
from evaluation.settings import CanarySettings
from evaluation.two_samples import BlockShape, TwoSamples

# A share of episodes without an outcome that is this much higher, by so many standard errors, is not chance.
_MISSING_SHARE = 0.05
_MISSING_Z = 3.0
_ERRORS_P = 0.001
_ERRORS_ALONE = 20


class CanaryVerdict(StrEnum):
    """What follows for a canary that runs."""

    CONTINUE = "continue"
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class JudgedEpisode:
    """An episode with an outcome: which side answered it, and how it went."""

    candidate: bool
    success: bool


@dataclass(frozen=True, slots=True)
class Errors:
    """Requests to one side, and those that the inference server failed on."""

    requests: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class CanaryEvidence:
    """What is known of a canary. `judged` is in the order in which outcomes came; `begun` counts all of a side."""

    judged: tuple[JudgedEpisode, ...]
    champion_begun: int
    candidate_begun: int
    hours: float


@dataclass(frozen=True, slots=True)
class CanaryDecision:
    """A verdict, its reason as a sentence, and its figures."""

    verdict: CanaryVerdict
    reason: str
    figures: CanaryFigures


def decide_canary(evidence: CanaryEvidence, share: float, settings: CanarySettings) -> CanaryDecision:
    """Judge the episodes in their order; the first proof decides, and a missing one is never a promotion."""
    margin = settings.margin if settings.promotes == "not_worse" else 0.0
    test = TwoSamples(BlockShape.of(share), margin)
    tally = {False: [0, 0], True: [0, 0]}
    proof = settings.proof
    verdict, why = CanaryVerdict.CONTINUE, "nothing is proved yet"
    held_back = _outcomes_missing(evidence)
    for episode in evidence.judged[: settings.most_episodes]:
        test.add(candidate=episode.candidate, success=episode.success)
        tally[episode.candidate][0] += 1
        tally[episode.candidate][1] += episode.success
        if test.e_worse >= proof:
            verdict, why = CanaryVerdict.ROLL_BACK, f"it is worse than the champion (e = {test.e_worse:.3g})"
            break
        if held_back:
            continue
        if test.e_better >= proof:
            verdict, why = CanaryVerdict.PROMOTE, f"it is better than the champion (e = {test.e_better:.3g})"
            break
        if margin and tally[True][0] >= settings.not_worse_episodes and test.e_not_worse >= proof:
            why = f"it is less than {margin:g} worse than the champion (e = {test.e_not_worse:.3g})"
            verdict = CanaryVerdict.PROMOTE
            break
    if verdict is CanaryVerdict.CONTINUE:
        limit = _limit(evidence, settings)
        if limit:
            verdict, why = CanaryVerdict.INCONCLUSIVE, f"{limit} and nothing is proved"
        if held_back:
            why += f"; {held_back}"
    figures = CanaryFigures(
        champion_episodes=tally[False][0],
        champion_successes=tally[False][1],
        candidate_episodes=tally[True][0],
        candidate_successes=tally[True][1],
        blocks=test.blocks,
        e_better=test.e_better,
        e_worse=test.e_worse,
        e_not_worse=test.e_not_worse if margin else None,
    )
    solved = (
        f"the candidate solved {figures.candidate_successes} of {figures.candidate_episodes} episodes, "
        f"the champion {figures.champion_successes} of {figures.champion_episodes}"
    )
    return CanaryDecision(verdict, f"Of the canary: {why}; {solved}.", figures)


def error_reason(champion: Errors, candidate: Errors, settings: CanarySettings) -> str | None:
    """Why the candidate is to be taken back at once: the inference server fails on it more often. None if it does not.

    Fisher's exact test compares the two sides, so that a server that fails on both takes nothing back. Where the
    champion was asked nothing meanwhile, many errors alone are enough.

    >>> error_reason(Errors(90, 0), Errors(10, 5), CanarySettings())
    'the inference server failed on 5 of 10 requests to the candidate, and on 0 of 90 to the champion'
    >>> error_reason(Errors(90, 45), Errors(10, 5), CanarySettings()) is None
    True
    """
    if candidate.errors < settings.least_errors:
        return None
    table = [
        [candidate.errors, candidate.requests - candidate.errors],
        [champion.errors, champion.requests - champion.errors],
    ]
    alone = champion.requests == 0 and candidate.errors >= max(_ERRORS_ALONE, candidate.requests / 2)
    if not alone and float(fisher_exact(table, alternative="greater").pvalue) > _ERRORS_P:
        return None
    return (
        f"the inference server failed on {candidate.errors} of {candidate.requests} requests to the candidate, "
        f"and on {champion.errors} of {champion.requests} to the champion"
    )


def _limit(evidence: CanaryEvidence, settings: CanarySettings) -> str | None:
    if len(evidence.judged) >= settings.most_episodes:
        return f"{settings.most_episodes} episodes were judged"
    # `not <`, so that a time that is not a number ends it.
    if not evidence.hours < settings.most_hours:
        return f"it ran for {settings.most_hours:g} hours"
    return None


def _outcomes_missing(evidence: CanaryEvidence) -> str | None:
    """Why nothing may be promoted: significantly more of the candidate's episodes have no outcome."""
    sides = (evidence.champion_begun, evidence.candidate_begun)
    if not all(sides):
        return None
    judged = [_count(evidence.judged, candidate) for candidate in (False, True)]
    champion, candidate = (1 - min(1.0, each / begun) for each, begun in zip(judged, sides, strict=True))
    error = sqrt(sum(share * (1 - share) / n for share, n in zip((champion, candidate), sides, strict=True)))
    if candidate - champion <= max(_MISSING_SHARE, _MISSING_Z * error):
        return None
    return (
        f"{candidate:.0%} of the candidate's episodes have no outcome, and {champion:.0%} of the champion's: "
        "what is missing may be its failures"
    )


def _count(judged: Iterable[JudgedEpisode], candidate: bool) -> int:
    return sum(each.candidate is candidate for each in judged)
