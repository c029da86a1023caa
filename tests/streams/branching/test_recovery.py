"""Recovering from failed episodes in real sandboxes."""

from collections.abc import AsyncIterator

import pytest

from ratchet_client.events import Task
from ratchet_client.messages import Message, assistant, text_of, user
from streams.branch_events import BranchRequest, RecoveryResult
from streams.branching.recovery import recover
from streams.branching.selectors import Selector, Uniform
from streams.branching.settings import BranchingSettings, RecoverySettings
from streams.environments.harness import ChatHarness
from streams.sandboxes.pool import SandboxPool
from tests.builders.branch_requests import played
from tests.builders.policies import ExpertPolicy, FixedPolicy, said
from tests.builders.selectors import Late

TASK = Task(environment="textworld_express", task_id="twc/train/17", seed=17)


@pytest.fixture
async def pool() -> AsyncIterator[SandboxPool]:
    async with SandboxPool("textworld_express", size=2) as sandboxes:
        yield sandboxes


async def failed_at(pool: SandboxPool, *actions: Message) -> BranchRequest:
    return await played(pool, TASK, actions, verdict="failed")


async def stuck(pool: SandboxPool) -> tuple[BranchRequest, ExpertPolicy]:
    """An episode that does the first thing right and then repeats an error, and a policy that knows better."""
    demonstration = await pool.demonstration(TASK)
    right = await failed_at(pool, *demonstration)
    failed = await failed_at(pool, demonstration[0], *[assistant("take moon")] * 3)
    answers = {
        text_of(step.observation): after.action for step, after in zip(right.steps, right.steps[1:], strict=False)
    }
    return failed, ExpertPolicy({**answers, text_of(failed.steps[1].observation): demonstration[1]})


def settings(**recovery: int) -> BranchingSettings:
    return BranchingSettings(recovery=RecoverySettings(**recovery))


async def recovered(
    request: BranchRequest,
    pool: SandboxPool,
    policy: ExpertPolicy | FixedPolicy,
    with_settings: BranchingSettings,
    selector: Selector | None = None,
) -> RecoveryResult:
    return await recover(request, pool, policy, selector or Late(), with_settings)


async def test_a_continuation_that_wins_after_an_error_recovers_the_episode(pool: SandboxPool) -> None:
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


@pytest.mark.slow
async def test_of_several_recoveries_the_shortest_are_kept(pool: SandboxPool) -> None:
    failed, policy = await stuck(pool)
    everywhere = await recovered(failed, pool, policy, settings(attempts=3, most=3), Uniform())
    one = await recovered(failed, pool, policy, settings(attempts=3), Uniform())
    assert len(everywhere.recoveries) > 1
    assert one.recoveries == everywhere.recoveries[:1]
    assert min(len(each.steps) for each in everywhere.recoveries) == len(one.recoveries[0].steps)


@pytest.mark.slow
async def test_a_continuation_that_only_repeats_itself_recovers_nothing(pool: SandboxPool) -> None:
    failed, _ = await stuck(pool)
    result = await recovered(failed, pool, FixedPolicy(said("take moon")), settings(attempts=4), Uniform())
    assert result.attempts == 4
    assert not result.recoveries


async def test_an_episode_that_diverges_in_the_sandbox_is_dropped_with_the_reason(pool: SandboxPool) -> None:
    failed, policy = await stuck(pool)
    other = failed.model_copy(update={"opening": ChatHarness().opening((user("You are in a maze."),))})
    result = await recovered(other, pool, policy, settings(attempts=2))
    assert (result.fidelity, result.recoveries, result.attempts) == ("dropped", (), 0)
    assert "at the start" in result.reason
