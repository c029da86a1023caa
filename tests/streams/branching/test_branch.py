"""Branching in real sandboxes."""

import os
import signal
import time
from collections.abc import AsyncIterator, Sequence

import pytest
from aiolimiter import AsyncLimiter

from ratchet_client.events import Task
from ratchet_client.messages import Message, Tools, assistant, text_of, user
from streams.branch_events import BranchRequest, BranchResult
from streams.branching.branch import acquire, branch
from streams.branching.selectors import Curiosity, Selector, Uniform
from streams.branching.settings import BranchingSettings
from streams.environments.harness import ChatHarness
from streams.policy.client import PolicyClient, Sampling
from streams.policy.served import Policy, Samples, ServedPolicy
from streams.runtime.processes import free_port
from streams.sandboxes.isolation.tree import processes
from streams.sandboxes.pool import SandboxPool
from tests.builders.branch_requests import played
from tests.builders.policies import FixedPolicy, said
from tests.builders.selectors import Late
from tests.waiting import eventually

TASK = Task(environment="textworld_express", task_id="twc/train/17", seed=17)
SETTINGS = BranchingSettings(alternatives=3)
TALKATIVE = said("Inventory.", "dance", "sing", "take dirty white polo shirt")


@pytest.fixture
async def pool() -> AsyncIterator[SandboxPool]:
    async with SandboxPool("textworld_express") as sandboxes:
        yield sandboxes


async def branched(
    request: BranchRequest,
    pool: SandboxPool,
    policy: Policy,
    settings: BranchingSettings = SETTINGS,
    selector: Selector | None = None,
) -> tuple[BranchResult, ...]:
    return await branch(request, pool, policy, selector or Uniform(), settings)


async def test_every_state_of_an_episode_is_branched(pool: SandboxPool) -> None:
    request = await played(pool, TASK)
    results = await branched(request, pool, FixedPolicy(TALKATIVE))
    assert [result.step for result in results] == list(range(len(request.steps)))
    for result in results:
        assert result.fidelity == "sandbox_replayed"
        assert result.policy == "ratchet-1-abc"
        assert result.event_id == BranchResult.id_for("request-1", result.step)
        assert result.requested == len(result.alternatives) == 3
        assert request.steps[result.step].action not in [alternative.action for alternative in result.alternatives]
    opening = {alternative.action.text: text_of(alternative.observation) for alternative in results[0].alternatives}
    assert opening["inventory"] == "Inventory: \n  Your inventory is currently empty. [score 0.00]"
    assert opening["dance"].startswith("Unknown action")
    assert "sing" not in opening


async def test_every_branch_is_asked_of_the_limiter(pool: SandboxPool) -> None:
    request = await played(pool, TASK)
    limiter = AsyncLimiter(100, time_period=1e9)
    await branch(request, pool, FixedPolicy(TALKATIVE), Uniform(), SETTINGS, limiter)
    left = 100 - SETTINGS.alternatives * len(request.steps)
    assert limiter.has_capacity(left)
    assert not limiter.has_capacity(left + 1)


async def test_more_branches_than_the_limit_are_waited_for() -> None:
    began = time.monotonic()
    await acquire(AsyncLimiter(5, time_period=0.05), 12)
    assert time.monotonic() - began >= 0.069  # five at once, and each of the seven after 10 ms


async def test_the_next_states_are_those_of_the_branched_state(pool: SandboxPool) -> None:
    request = await played(pool, TASK)
    last = (await branched(request, pool, FixedPolicy(TALKATIVE)))[-1]
    answers = {alternative.action.text: text_of(alternative.observation) for alternative in last.alternatives}
    assert request.steps[0].action == assistant("take dirty white polo shirt")
    assert "dirty white shirt" in answers["inventory"]
    assert answers["inventory"].endswith("[score 0.75]")


async def test_the_same_request_gives_the_same_results(pool: SandboxPool) -> None:
    request = await played(pool, TASK)
    assert await branched(request, pool, FixedPolicy()) == await branched(request, pool, FixedPolicy())


async def test_a_budget_goes_where_the_selector_wants_it(pool: SandboxPool) -> None:
    request = await played(pool, TASK)
    settings = BranchingSettings(alternatives=3, branches_per_episode=4)
    results = await branched(request, pool, FixedPolicy(), settings, Late())
    assert [len(result.alternatives) for result in results] == [0, 0, 1, 3]
    assert {result.fidelity for result in results} == {"sandbox_replayed"}


async def test_a_selector_that_asks_for_negative_log_likelihoods_gets_them(pool: SandboxPool) -> None:
    request = await played(pool, TASK)
    told: list[float | None] = []

    class Listening(Curiosity):
        def weigh(self, situations: Sequence) -> list[float]:  # type: ignore[type-arg] # of situations, as the base has it
            told.extend(situation.negative_log_likelihood for situation in situations)
            return super().weigh(situations)

    await branched(request, pool, FixedPolicy(loss=2.5), selector=Listening())
    assert told == [2.5] * len(request.steps)


async def test_a_state_whose_branches_bring_nothing_new_gets_no_more_branches(pool: SandboxPool) -> None:
    request = await played(pool, TASK)
    errors = said(*(f"fly to planet {number}" for number in range(9)))
    settings = BranchingSettings(alternatives=9, samples=9, invalid_share=1, adaptive=True, round=2)
    results = await branched(request, pool, FixedPolicy(errors), settings)
    # The first round brings that there is no such action, the second one nothing new.
    assert [len(result.alternatives) for result in results] == [4] * len(request.steps)


async def test_a_recording_that_diverges_in_the_sandbox_is_dropped_from_that_state_on(pool: SandboxPool) -> None:
    request = await played(pool, TASK)
    altered = request.steps[1].model_copy(update={"observation": (user("The shirt bites you. [score 0.50]"),)})
    diverging = request.model_copy(update={"steps": (request.steps[0], altered, *request.steps[2:])})
    results = await branched(diverging, pool, FixedPolicy(TALKATIVE))
    assert [result.fidelity for result in results] == ["sandbox_replayed"] * 2 + ["dropped"] * 2
    assert not results[2].alternatives
    assert results[2].requested == 3
    assert "after action 2" in results[2].reason


async def test_an_opening_that_differs_in_the_sandbox_drops_every_state(pool: SandboxPool) -> None:
    request = await played(pool, TASK)
    other = request.model_copy(update={"opening": ChatHarness().opening((user("You are in a maze."),))})
    results = await branched(other, pool, FixedPolicy(TALKATIVE))
    assert {result.fidelity for result in results} == {"dropped"}
    assert "at the start" in results[0].reason


async def test_a_reserved_task_is_dropped_with_the_reason(pool: SandboxPool) -> None:
    request = await played(pool, TASK)
    reserved = request.model_copy(update={"task": Task(environment="textworld_express", task_id="twc/test/1")})
    results = await branched(reserved, pool, FixedPolicy(TALKATIVE))
    assert all(result.fidelity == "dropped" and "reserved" in result.reason for result in results)


async def test_a_sandbox_killed_while_branching_costs_no_state(pool: SandboxPool) -> None:
    request = await played(pool, TASK)
    killed: list[int] = []

    class Killer(FixedPolicy):
        async def sample(
            self, messages: Sequence[Message], tools: Tools, samplings: Sequence[Sampling], samples: int
        ) -> Samples:
            if not killed:
                killed.extend(pool.pids)
                os.kill(killed[0], signal.SIGKILL)
            return Samples()

    results = await branched(request, pool, Killer())
    assert {result.fidelity for result in results} == {"sandbox_replayed"}
    assert not any(result.failures for result in results)
    await eventually(lambda: killed[0] not in {process.pid for process in processes()}, "the killed process is gone")


async def test_an_unavailable_policy_gives_no_samples_after_its_timeout() -> None:
    async with PolicyClient(f"http://127.0.0.1:{free_port()}") as client:
        policy = ServedPolicy(client, "assistant", patience_s=0.5)
        chat = (user("go"),)
        assert await policy.sample(chat, (), (Sampling(temperature=1.0), Sampling(temperature=1.2)), 4) == Samples()
        assert await policy.negative_log_likelihoods((*chat, assistant("go"), user("gone")), ()) is None
