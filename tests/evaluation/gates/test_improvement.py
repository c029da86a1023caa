"""The gate `improvement` as it is played: in blocks, in a keyed order, on one list or screened and confirmed."""

import math
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from evaluation.gates.gate import Evidence, TaskLists
from evaluation.gates.improvement import Improvement, expected_of
from evaluation.gates.verdict import GateResult, Verdict
from evaluation.rollouts import Rollout
from evaluation.settings import GateSettings, ImprovementSettings
from evaluation.stages import planned
from evaluation.trial import hold_trial
from evaluation.units import units_of
from ratchet_client.events import Task
from streams.errors import GateError
from tests.builders.trials import CANDIDATE, CHAMPION, RecordedArena, evidence, rollout, tasks

FIRST_ALPHA = 0.00134
FEW = GateSettings(min_tasks=1)
Plays = Callable[[Task, str], Rollout]


def better_on(*seeds: int) -> Plays:
    """Only the candidate solves the tasks of these seeds."""
    return lambda task, model: rollout(task, model == CANDIDATE.served and task.seed in seeds)


def worse_on(*seeds: int) -> Plays:
    return lambda task, model: rollout(task, model == CHAMPION.served and task.seed in seeds)


def asked(trial: Evidence) -> list[tuple[str, int]]:
    assert isinstance(trial.arena, RecordedArena)
    return trial.arena.asked


async def judged(trial: Evidence, settings: GateSettings = FEW) -> GateResult:
    return await Improvement(settings).judge(trial)


async def test_a_clear_case_is_promoted_after_one_to_three_blocks() -> None:
    solved = random.Random(0).sample(range(160), 43)
    trial = evidence(tasks(160), better_on(*solved), FIRST_ALPHA)
    result = await judged(trial, GateSettings())
    assert result.verdict is Verdict.PROMOTE
    assert result.figures["tasks"] in (32, 64, 96)
    assert len(trial.pairs) == result.figures["tasks"]
    assert result.figures["losses"] == 0


async def test_a_damaged_candidate_is_rejected_after_one_or_two_blocks() -> None:
    solved = random.Random(0).sample(range(160), 70)
    result = await judged(evidence(tasks(160), worse_on(*solved), FIRST_ALPHA), GateSettings())
    assert result.verdict is Verdict.REJECT
    assert result.figures["tasks"] in (32, 64)
    assert "is worse than the champion" in result.reason


async def test_a_candidate_that_changes_nothing_stops_early_and_is_not_promoted() -> None:
    result = await judged(evidence(tasks(1000), lambda task, model: rollout(task, task.seed % 3 == 0), FIRST_ALPHA))
    assert (result.verdict, result.figures["tasks"]) == (Verdict.INCONCLUSIVE, 96)
    assert "so the gate stopped" in result.reason


async def test_the_quick_demo_promotes_within_its_tasks() -> None:
    trial = evidence(tasks(24), better_on(*range(4)), alpha=0.3)
    result = await judged(trial, GateSettings(min_tasks=24))
    assert (result.verdict, result.figures["tasks"], result.figures["wins"]) == (Verdict.PROMOTE, 24, 4)


async def test_both_sides_play_a_block_and_then_it_is_decided() -> None:
    told: list[tuple[str, int, int]] = []
    trial = evidence(tasks(70), lambda task, model: rollout(task, model == CANDIDATE.served), FIRST_ALPHA)
    trial.progress = lambda gate, done, total: told.append((gate, done, total))
    result = await judged(trial)
    assert result.verdict is Verdict.PROMOTE
    assert asked(trial) == [(CHAMPION.served, 32), (CANDIDATE.served, 32)]
    assert [done for _, done, _ in told] == [0, 32, 64, 64]
    assert (told[0][2], told[-1][1:]) == (140, (64, 64))


async def test_the_order_is_keyed_by_the_candidate_and_the_holdout_and_not_by_the_list() -> None:
    async def order(trial: Evidence) -> list[str]:
        await judged(trial)
        return [pair.task.task_id for pair in trial.pairs]

    first = await order(evidence(tasks(40)))
    assert first == await order(evidence(tasks(40)[::-1]))
    assert first != [task.task_id for task in tasks(40)]
    another = evidence(tasks(40))
    another.candidate = replace(CANDIDATE, adapter="c" * 64)
    assert sorted(first) == sorted(await order(another)) != await order(another)
    secret = evidence(tasks(40))
    secret.holdout = secret.holdout.model_copy(update={"key": "of the operator"})
    assert await order(secret) != first


async def test_variants_of_a_task_are_one_unit_and_played_together() -> None:
    variants = [
        task.model_copy(update={"task_id": f"{task.task_id}~{variant}"}) for task in tasks(7) for variant in "abcd"
    ]
    trial = evidence(variants, lambda task, model: rollout(task, model == CANDIDATE.served), alpha=0.05)
    result = await judged(trial, GateSettings(min_tasks=1, improvement=ImprovementSettings(block=3)))
    assert asked(trial)[0] == (CHAMPION.served, 12)
    assert (result.figures["tasks"], result.figures["wins"], result.figures["p_better"]) == (7, 7, None)
    assert result.verdict is Verdict.INCONCLUSIVE, "seven wins are no proof, twenty-eight would be"
    alone = await judged(evidence(tasks(28), better_on(*range(28)), alpha=0.05))
    assert alone.verdict is Verdict.PROMOTE


async def test_graded_scores_are_compared_where_that_is_set() -> None:
    def half(task: Task, model: str) -> Rollout:
        return replace(rollout(task, False), score=0.6 if model == CANDIDATE.served else 0.1)

    assert (await judged(evidence(tasks(80), half))).verdict is Verdict.INCONCLUSIVE
    graded = GateSettings(min_tasks=1, improvement=ImprovementSettings(measure="score"))
    result = await judged(evidence(tasks(80), half), graded)
    assert result.verdict is Verdict.PROMOTE
    assert result.figures["mean_difference"] == pytest.approx(0.5)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, 1e300, -1.0, 1.5])
@pytest.mark.parametrize("measure", ["success", "score"])
async def test_a_score_that_is_none_never_promotes(score: float, measure: str) -> None:
    def odd(task: Task, model: str) -> Rollout:
        return replace(rollout(task, model == CANDIDATE.served), score=score if model == CANDIDATE.served else 0.0)

    settings = GateSettings(min_tasks=1, improvement=ImprovementSettings.model_validate({"measure": measure}))
    trial = evidence(tasks(200), odd)
    verdict, _ = await hold_trial(trial, [Improvement(settings)])
    assert verdict in (Verdict.INCONCLUSIVE, Verdict.REJECT)
    assert len(trial.pairs) > 0, "what was played can be looked at"


@pytest.mark.parametrize("alpha", [math.nan, math.inf, -0.5, 1.0])
async def test_an_alpha_that_is_no_probability_never_promotes(alpha: float) -> None:
    trial = evidence(tasks(200), better_on(*range(200)), alpha)
    verdict, reason = await hold_trial(trial, [Improvement(FEW)])
    assert verdict is Verdict.INCONCLUSIVE
    assert "not a probability of error" in reason
    assert asked(trial) == []


async def test_without_alpha_left_nothing_is_promoted() -> None:
    result = await judged(evidence(tasks(200), better_on(*range(200)), alpha=0.0))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "no alpha is left" in result.reason


async def test_too_few_tasks_give_no_verdict_and_nothing_is_played() -> None:
    trial = evidence(tasks(149))
    with pytest.raises(GateError, match="149 tasks are too few"):
        await judged(trial, GateSettings())
    assert asked(trial) == []


async def test_a_task_that_is_listed_twice_gives_no_verdict() -> None:
    with pytest.raises(GateError, match="on the list twice"):
        await judged(evidence([*tasks(40), *tasks(1)]))


async def test_a_gate_with_little_power_says_so_before_it_plays() -> None:
    told: list[tuple[str, list[tuple[str, int]]]] = []
    trial = evidence(tasks(187), alpha=FIRST_ALPHA)
    trial.progress = lambda gate, done, total: told.append((gate, list(asked(trial))))
    result = await judged(trial)
    assert told[0] == (f"improvement (power {result.figures['power']:.2f} for +0.05)", [])
    assert "The power for a gain of 0.05 with 187 tasks" in result.reason
    power = result.figures["power"]
    assert isinstance(power, float)
    assert 0.01 < power < 0.1


async def test_a_gate_with_tasks_enough_has_no_reservations() -> None:
    result = await judged(evidence(tasks(2000), alpha=FIRST_ALPHA))
    assert "power" not in result.reason
    power = result.figures["power"]
    assert isinstance(power, float)
    assert power > 0.85


def used(selection: int, confirmation: int, results: Plays) -> Evidence:
    """A list that three gates played before, and fresh tasks."""
    trial, every = evidence((), results, FIRST_ALPHA), tasks(selection + confirmation)
    trial.tasks = TaskLists(tuple(every[:selection]), tuple(every[selection:]), played=3)
    return trial


async def test_what_a_used_list_shows_is_proved_on_fresh_tasks() -> None:
    trial = used(187, 400, lambda task, model: rollout(task, model == CANDIDATE.served and task.seed % 3 == 0))
    result = await judged(trial)
    assert (result.verdict, result.figures["stage"]) == (Verdict.PROMOTE, "confirmation")
    screened = [pair for pair in trial.pairs if pair.task.seed < 187]
    assert 0 < len(screened) < 187, "a clear case passes at once"
    assert [pair.task.seed < 187 for pair in trial.pairs] == [True] * len(screened) + [False] * (
        len(trial.pairs) - len(screened)
    )


async def test_an_adapter_that_learned_the_used_list_by_heart_is_not_promoted() -> None:
    trial = used(187, 400, lambda task, model: rollout(task, model == CANDIDATE.served and task.seed < 187))
    result = await judged(trial)
    assert (result.verdict, result.figures["stage"]) == (Verdict.INCONCLUSIVE, "confirmation")


async def test_what_does_not_pass_the_screening_costs_no_fresh_task() -> None:
    trial = used(187, 400, lambda task, model: rollout(task, task.seed % 3 == 0))
    result = await judged(trial)
    assert (result.verdict, result.figures["stage"]) == (Verdict.INCONCLUSIVE, "screening")
    assert all(pair.task.seed < 187 for pair in trial.pairs)
    worse = await judged(used(187, 400, lambda task, model: rollout(task, model == CHAMPION.served)))
    assert (worse.verdict, worse.figures["stage"]) == (Verdict.REJECT, "screening")


async def test_proof_on_a_used_list_without_fresh_tasks_is_held_for_a_person() -> None:
    result = await judged(used(187, 0, better_on(*range(187))))
    assert (result.verdict, result.figures["stage"]) == (Verdict.HOLD, "used")
    trusting = GateSettings(min_tasks=1, improvement=ImprovementSettings(used_list="PROMOTE"))
    assert (await judged(used(187, 0, better_on(*range(187))), trusting)).verdict is Verdict.PROMOTE
    assert "3 gates played this list before" in result.reason


@pytest.mark.parametrize(
    ("selection", "fresh", "confirmation", "stages"),
    [
        (2000, 2000, 400, ["fresh 2000"]),
        (2000, 1500, 1000, ["fresh 1500"]),
        (2000, 300, 1800, ["fresh 2000"]),
        (187, 187, 63, ["fresh 187"]),
        (187, 60, 1000, ["screening 187", "confirmation 1000"]),
        (187, 0, 63, ["screening 187", "confirmation 63"]),
        (187, 5, 5, ["used 187"]),
        (187, 0, 0, ["used 187"]),
    ],
)
def test_proofs_are_on_fresh_tasks_as_long_as_there_are_any(
    selection: int, fresh: int, confirmation: int, stages: list[str]
) -> None:
    every = units_of(tasks(selection + confirmation))
    plan = planned(every[:selection], every[:fresh], every[selection:], FIRST_ALPHA, GateSettings())
    assert [f"{stage.name.value} {len(stage.units)}" for stage in plan.stages] == stages


async def test_only_what_the_account_says_is_fresh_confirms() -> None:
    trial = used(187, 400, lambda task, model: rollout(task, model == CANDIDATE.served))
    fresh = [task.task_id for task in trial.tasks.confirmation[:100]]
    trial.tasks = replace(trial.tasks, fresh=frozenset(fresh))
    assert (await judged(trial)).figures["available"] == 100
    trial.tasks = replace(trial.tasks, fresh=frozenset())
    assert (await judged(trial)).figures["stage"] == "used"


async def test_earlier_gates_tell_how_the_next_two_adapters_play() -> None:
    result = await judged(evidence(tasks(200), lambda task, model: rollout(task, task.seed % 2 == 0)))
    expected = expected_of([result, result])
    assert expected.tasks == 192
    assert expected.phi == pytest.approx(1.0)
    assert expected.base == pytest.approx(0.5, abs=0.15)
    assert expected_of([result.model_copy(update={"figures": {"p_better": 0.01}})]).tasks == 0
