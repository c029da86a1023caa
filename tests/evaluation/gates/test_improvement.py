import pytest

from evaluation.gates.improvement import Improvement, decide
from evaluation.gates.verdict import Verdict
from evaluation.rollouts import Rollout
from evaluation.settings import GateSettings
from streams.errors import GateError
from streams.messages import assistant
from tests.builders.trials import CANDIDATE, evidence, rollout, tasks

SETTINGS = GateSettings()
LOOKED = (assistant("look around"),)


def rollouts(solved: set[int], tasks: int = 150) -> list[Rollout]:
    """Rollouts of the tasks 0, 1, …; the ones in `solved` succeed."""
    return [
        Rollout(f"twc/train/{n}", n in solved, float(n in solved), steps=5, invalid_actions=1, actions=LOOKED)
        for n in range(tasks)
    ]


def test_a_candidate_that_solves_more_is_promoted() -> None:
    decision = decide(rollouts(set(range(10))), rollouts(set(range(5, 30))), SETTINGS)
    assert decision.verdict is Verdict.PROMOTE
    assert (decision.wins, decision.losses, decision.ties) == (20, 5, 125)
    assert decision.p_better <= 0.05 < decision.p_worse
    assert "alone solves 20, the champion alone 5" in decision.reason


def test_a_candidate_that_solves_less_is_rejected() -> None:
    decision = decide(rollouts(set(range(20))), rollouts({0, 1}), SETTINGS)
    assert decision.verdict is Verdict.REJECT
    assert decision.p_worse <= 0.05 < decision.p_better


def test_equally_good_adapters_are_inconclusive() -> None:
    same = rollouts(set(range(20)))
    decision = decide(same, same, SETTINGS)
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert decision.p_better == decision.p_worse == 1.0


def test_a_few_more_successes_are_not_significant() -> None:
    assert decide(rollouts(set()), rollouts(set(range(4))), SETTINGS).verdict is Verdict.INCONCLUSIVE
    assert decide(rollouts(set()), rollouts(set(range(5))), SETTINGS).verdict is Verdict.PROMOTE


def test_tasks_are_paired_by_id_and_not_by_place() -> None:
    champion, candidate = rollouts(set(range(10))), rollouts(set(range(10)))
    assert decide(champion, candidate[::-1], SETTINGS).ties == 150


def test_sides_that_played_different_tasks_get_no_verdict() -> None:
    with pytest.raises(GateError, match="different tasks"):
        decide(rollouts(set(), 151), rollouts(set(), 150), SETTINGS)


def test_a_task_that_was_played_twice_gives_no_verdict() -> None:
    with pytest.raises(GateError, match="played twice"):
        decide(rollouts(set()) * 2, rollouts(set()) * 2, SETTINGS)


def test_too_few_tasks_give_no_verdict() -> None:
    with pytest.raises(GateError, match="149 tasks are too few"):
        decide(rollouts(set(), 149), rollouts(set(range(100)), 149), SETTINGS)


async def test_both_sides_play_the_same_tasks_and_what_they_did_is_kept() -> None:
    told: list[tuple[str, int, int]] = []
    trial = evidence(tasks(4), lambda task, model: rollout(task, model == CANDIDATE.served))
    trial.progress = lambda gate, done, total: told.append((gate, done, total))
    result = await Improvement(GateSettings(min_tasks=4)).judge(trial)
    assert (result.gate, result.verdict) == ("improvement", Verdict.INCONCLUSIVE)
    assert (result.figures["wins"], result.figures["losses"]) == (4, 0)
    assert [pair.is_win for pair in trial.pairs] == [True] * 4
    assert told == [("improvement", 4, 8), ("improvement", 8, 8)]
