"""Recovering from failed episodes in real sandboxes."""

from collections.abc import AsyncIterator

import pytest

from streams.branching.rate_limit import Budget
from streams.branching.recovery import recover
from streams.branching.selectors import Selector, Uniform
from streams.branching.settings import BranchingSettings, RecoverySettings
from streams.environments.harness import ChatHarness
from streams.events import BranchRequest, RecordedStep, RecoveryResult, Task
from streams.sandboxes.pool import SandboxPool
from tests.builders.selectors import Late
from tests.streams.policy.policies import ExpertPolicy, FixedPolicy

TASK = Task(environment="textworld_express", task_id="twc/train/17", seed=17)
UNLIMITED = Budget(None)


@pytest.fixture
async def pool() -> AsyncIterator[SandboxPool]:
    async with SandboxPool("textworld_express", size=2) as sandboxes:
        yield sandboxes


async def played(pool: SandboxPool, *actions: str) -> BranchRequest:
    """An episode of those actions as production recorded it."""
    async with pool.session() as session:
        first, *answers = await session.replay(TASK, actions)
    return BranchRequest(
        episode_id="episode-1",
        task=TASK,
        verdict="failed",
        opening=ChatHarness().opening(first.text),
        steps=tuple(
            RecordedStep(action=action, observation=answer.text)
            for action, answer in zip(actions, answers, strict=True)
        ),
    )


async def stuck(pool: SandboxPool) -> tuple[BranchRequest, ExpertPolicy]:
    """An episode that does the first thing right and then repeats an error, and a policy that knows better."""
    demonstration = await pool.demonstration(TASK)
    right = await played(pool, *demonstration)
    failed = await played(pool, demonstration[0], "take moon", "take moon", "take moon")
    answers = {step.observation: after.action for step, after in zip(right.steps, right.steps[1:], strict=False)}
    return failed, ExpertPolicy({**answers, failed.steps[1].observation: demonstration[1]})


def settings(**recovery: int) -> BranchingSettings:
    return BranchingSettings(recovery=RecoverySettings(**recovery))


async def recovered(
    request: BranchRequest,
    pool: SandboxPool,
    policy: ExpertPolicy | FixedPolicy,
    with_settings: BranchingSettings,
    selector: Selector | None = None,
) -> RecoveryResult:
    return await recover(request, pool, policy, selector or Late(), with_settings, UNLIMITED)


async def test_who_goes_on_rightly_after_an_error_recovers_the_episode(pool: SandboxPool) -> None:
    failed, policy = await stuck(pool)
    result = await recovered(failed, pool, policy, settings(attempts=1))
    (recovery,) = result.recoveries
    assert recovery.left_at == 3
    assert recovery.source == "policy"
    assert recovery.score == 1.0
    assert tuple(step.action for step in recovery.steps) == (await pool.demonstration(TASK))[1:]
    assert (result.fidelity, result.policy, result.attempts) == ("sandbox_replayed", "ratchet-2-def", 1)
    assert result.sandbox_steps == len(recovery.steps)


async def test_no_more_steps_are_taken_than_allowed(pool: SandboxPool) -> None:
    failed, policy = await stuck(pool)
    result = await recovered(failed, pool, policy, settings(attempts=1, steps=2))
    assert (result.recoveries, result.sandbox_steps) == ((), 2)


async def test_of_several_recoveries_the_shortest_are_kept(pool: SandboxPool) -> None:
    failed, policy = await stuck(pool)
    everywhere = await recovered(failed, pool, policy, settings(attempts=3, most=3), Uniform())
    one = await recovered(failed, pool, policy, settings(attempts=3), Uniform())
    assert len(everywhere.recoveries) > 1
    assert one.recoveries == everywhere.recoveries[:1]
    assert min(len(each.steps) for each in everywhere.recoveries) == len(one.recoveries[0].steps)


async def test_who_only_repeats_itself_recovers_nothing(pool: SandboxPool) -> None:
    failed, _ = await stuck(pool)
    result = await recovered(failed, pool, FixedPolicy(("take moon",)), settings(attempts=4), Uniform())
    assert result.attempts == 4
    assert not result.recoveries


async def test_an_episode_that_the_sandbox_contradicts_is_dropped_with_the_reason(pool: SandboxPool) -> None:
    failed, policy = await stuck(pool)
    other = failed.model_copy(update={"opening": ChatHarness().opening("You are in a maze.")})
    result = await recovered(other, pool, policy, settings(attempts=2))
    assert (result.fidelity, result.recoveries, result.attempts) == ("dropped", (), 0)
    assert "at the start" in result.reason
