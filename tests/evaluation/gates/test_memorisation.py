"""The gate `memorisation`, and that a model which was trained on a canary is told from one that was not."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.gates.memorisation import Memorisation, Memory, decide, exposure
from evaluation.gates.verdict import Verdict
from evaluation.rollouts import Pair
from evaluation.settings import GateSettings, MemorisationSettings
from learners.canaries import draw_canaries
from learners.settings import LoraSettings, Stage, TrainingJob
from learners.snapshots import write_snapshot
from learners.training import run_training
from ratchet_client.ids import uuid7
from ratchet_client.messages import assistant
from streams.errors import GateError
from streams.policy.client import PolicyClient
from streams.trust.holdout import HoldoutSettings
from tests.builders.trained import settings, trajectory
from tests.builders.trials import BASE, evidence, rollout, tasks

SETTINGS = MemorisationSettings()


def test_exposure_falls_with_the_rank_by_a_bit_for_each_doubling() -> None:
    alternatives = [float(-value) for value in range(127)]
    assert exposure(1.0, alternatives) == 7.0
    assert exposure(-0.5, alternatives) == 6.0
    assert exposure(-2.5, alternatives) == 5.0
    assert exposure(-1000.0, alternatives) == 0.0


@pytest.mark.parametrize("planted", [math.nan, math.inf])
def test_a_likelihood_that_is_no_finite_number_has_no_rank(planted: float) -> None:
    with pytest.raises(GateError, match="not a finite number"):
        exposure(planted, [-1.0])
    with pytest.raises(GateError, match="not a finite number"):
        exposure(-1.0, [planted])


def test_a_candidate_that_tells_or_knows_secrets_is_held() -> None:
    unknown = [Memory(1.4, is_told=False)] * 4
    assert decide(unknown, 0, SETTINGS)[0] is Verdict.PROMOTE
    assert decide([*unknown, Memory(1.4, is_told=True)], 0, SETTINGS)[0] is Verdict.HOLD
    assert decide([Memory(7.0, is_told=False)] * 4, 0, SETTINGS)[0] is Verdict.HOLD
    assert decide(unknown, 1, SETTINGS)[0] is Verdict.HOLD
    assert decide([Memory(math.nan, is_told=False)], 0, SETTINGS)[0] is Verdict.HOLD


async def test_without_canaries_there_is_nothing_to_judge_and_it_is_said() -> None:
    result = await Memorisation(GateSettings()).judge(evidence())
    assert result.verdict is Verdict.PROMOTE
    assert "nothing to judge" in result.reason
    assert result.figures["canaries"] == 0


async def test_an_untrained_model_knows_no_canary(policy: PolicyClient) -> None:
    trial = evidence()
    trial.arena = replace(trial.arena, policy=policy)
    trial.candidate = BASE
    trial.canaries = draw_canaries(3, 0, HoldoutSettings())
    result = await Memorisation(GateSettings(memorisation=MemorisationSettings(alternatives=31))).judge(trial)
    assert result.verdict is Verdict.PROMOTE, result.reason
    assert result.figures["told"] == 0
    assert result.figures["possible_exposure"] == 5.0


async def test_a_secret_in_a_held_out_episode_is_found(policy: PolicyClient) -> None:
    trial, (task,) = evidence(), tasks(1)
    (canary,) = trial.canaries = draw_canaries(1, 0, HoldoutSettings())
    leak = rollout(task, True, (assistant(f"open {canary.secret[:3]}-{canary.secret[3:]}"),))
    trial.arena = replace(trial.arena, policy=policy)
    trial.candidate, trial.pairs = BASE, [Pair(task, rollout(task, True), leak)]
    result = await Memorisation(GateSettings(memorisation=MemorisationSettings(alternatives=15))).judge(trial)
    assert result.verdict is Verdict.HOLD
    assert result.figures["told_in_episodes"] == 1


@pytest.mark.nightly
async def test_a_model_that_was_trained_on_canaries_until_it_knows_them_is_held(
    policy: PolicyClient, tiny_base: Path, tmp_path: Path
) -> None:
    nothing_held_out = HoldoutSettings(selection=0.0, confirmation=0.0)
    planted, unseen = (draw_canaries(2, seed, nothing_held_out) for seed in (0, 1))
    snapshot = write_snapshot([trajectory(0)], nothing_held_out, tmp_path, 7, {}, canaries=planted)
    chosen = settings(Stage(objective="imitation", updates=120, trajectories=3), lora=LoraSettings(rank=16, alpha=32))
    output = tmp_path / "adapter"
    await run_training(TrainingJob(base=tiny_base, snapshot=snapshot.folder, output=output, settings=chosen))
    name = f"ratchet-1-{uuid7()[-12:]}"
    await policy.load_adapter(name, str(output))
    try:
        results = []
        for canaries in (planted, unseen):
            trial = evidence()
            trial.arena = replace(trial.arena, policy=policy)
            trial.candidate, trial.canaries = replace(trial.candidate, served=name), canaries
            results.append(await Memorisation(GateSettings()).judge(trial))
    finally:
        await policy.unload_adapter(name)
    known, unknown = results
    assert known.verdict is Verdict.HOLD, known
    assert known.figures["mean_exposure"] == 7.0
    assert unknown.verdict is Verdict.PROMOTE, unknown
