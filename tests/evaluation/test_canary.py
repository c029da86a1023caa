"""The judgement of a canary: the first proof decides, and what is missing never promotes."""

import random

import pytest
from pydantic import ValidationError

from evaluation.canary import (
    CanaryEvidence,
    CanaryVerdict,
    Errors,
    JudgedEpisode,
    decide_canary,
    error_reason,
)
from evaluation.settings import CanarySettings

SETTINGS = CanarySettings(share=0.5)


def judged(difference: float, episodes: int, seed: int = 0, base: float = 0.5) -> tuple[JudgedEpisode, ...]:
    draw = random.Random(seed)
    sides = [draw.random() < 0.5 for _ in range(episodes)]
    return tuple(JudgedEpisode(side, draw.random() < base + difference * side) for side in sides)


def evidence(
    episodes: tuple[JudgedEpisode, ...], hours: float = 1.0, unjudged: tuple[int, int] = (0, 0)
) -> CanaryEvidence:
    candidates = sum(each.candidate for each in episodes)
    return CanaryEvidence(episodes, len(episodes) - candidates + unjudged[0], candidates + unjudged[1], hours)


def test_without_any_outcome_the_canary_goes_on() -> None:
    decision = decide_canary(evidence(()), 0.5, SETTINGS)
    assert (decision.verdict, decision.figures.blocks) == (CanaryVerdict.CONTINUE, 0)


def test_a_worse_candidate_is_rolled_back_and_a_better_one_promoted() -> None:
    worse = decide_canary(evidence(judged(-0.3, 2000)), 0.5, SETTINGS)
    assert worse.verdict is CanaryVerdict.ROLL_BACK
    assert "worse than the champion" in worse.reason
    assert worse.figures.e_worse >= 40
    better = decide_canary(evidence(judged(0.3, 2000)), 0.5, SETTINGS)
    assert better.verdict is CanaryVerdict.PROMOTE
    assert better.figures.candidate_episodes + better.figures.champion_episodes < 500  # it stops at the proof


def test_a_proof_stands_whatever_comes_after_it() -> None:
    episodes = judged(-0.4, 400)
    first = decide_canary(evidence(episodes), 0.5, SETTINGS)
    later = decide_canary(evidence(episodes + judged(0.4, 4000)), 0.5, SETTINGS)
    assert first == later
    assert first.verdict is CanaryVerdict.ROLL_BACK


@pytest.mark.parametrize("hours", [168.0, float("inf"), float("nan")])
def test_the_end_of_the_time_without_a_proof_is_inconclusive(hours: float) -> None:
    decision = decide_canary(evidence(judged(0.0, 50), hours), 0.5, SETTINGS)
    assert decision.verdict is CanaryVerdict.INCONCLUSIVE
    assert "ran for 168 hours and nothing is proved" in decision.reason


def test_the_most_episodes_without_a_proof_are_inconclusive_and_none_after_them_counts() -> None:
    settings = SETTINGS.model_copy(update={"most_episodes": 60})
    decision = decide_canary(evidence(judged(0.0, 60) + judged(0.5, 4000)), 0.5, settings)
    assert decision.verdict is CanaryVerdict.INCONCLUSIVE
    assert decision.figures.champion_episodes + decision.figures.candidate_episodes == 60


def test_a_candidate_whose_episodes_have_fewer_outcomes_is_not_promoted_but_may_be_rolled_back() -> None:
    missing = decide_canary(evidence(judged(0.3, 600), unjudged=(30, 400)), 0.5, SETTINGS)
    assert missing.verdict is CanaryVerdict.CONTINUE
    assert "what is missing may be its failures" in missing.reason
    late = decide_canary(evidence(judged(0.3, 600), 200.0, (30, 400)), 0.5, SETTINGS)
    assert late.verdict is CanaryVerdict.INCONCLUSIVE
    assert (
        decide_canary(evidence(judged(-0.3, 600), unjudged=(30, 400)), 0.5, SETTINGS).verdict is CanaryVerdict.ROLL_BACK
    )
    alike = decide_canary(evidence(judged(0.3, 600), unjudged=(300, 300)), 0.5, SETTINGS)
    assert alike.verdict is CanaryVerdict.PROMOTE


def test_an_equal_candidate_is_promoted_only_where_not_worse_is_enough_and_after_so_many_episodes() -> None:
    episodes = evidence(judged(0.0, 8000, seed=1))
    assert decide_canary(episodes, 0.5, SETTINGS).verdict is CanaryVerdict.CONTINUE
    lenient = CanarySettings(share=0.5, promotes="not_worse", margin=0.1, not_worse_episodes=2500)
    decision = decide_canary(episodes, 0.5, lenient)
    assert decision.verdict is CanaryVerdict.PROMOTE
    assert "less than 0.1 worse" in decision.reason
    assert decision.figures.candidate_episodes >= 2500


@pytest.mark.parametrize(
    ("champion", "candidate", "is_taken_back"),
    [
        (Errors(90, 0), Errors(10, 4), False),  # fewer than can end a canary
        (Errors(90, 0), Errors(10, 5), True),
        (Errors(900, 0), Errors(1000, 5), False),  # five in a thousand are nothing
        (Errors(90, 60), Errors(10, 9), False),  # the server fails on both
        (Errors(0, 0), Errors(30, 5), False),
        (Errors(0, 0), Errors(25, 25), True),  # nothing to compare with, and nothing works
    ],
)
def test_a_candidate_on_which_the_server_fails_more_often_is_taken_back_at_once(
    champion: Errors, candidate: Errors, is_taken_back: bool
) -> None:
    assert (error_reason(champion, candidate, SETTINGS) is not None) == is_taken_back


@pytest.mark.parametrize(
    "wrong", [{"share": 1.0}, {"share": -0.1}, {"share": float("nan")}, {"alpha": 0}, {"most_hours": float("inf")}]
)
def test_settings_that_leave_nothing_to_compare_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        CanarySettings.model_validate(wrong)


def test_canaries_are_off_unless_they_are_asked_for() -> None:
    assert CanarySettings().share == 0
