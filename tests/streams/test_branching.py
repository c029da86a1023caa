"""Branching in real sandboxes. The policy is a fixed list of replies: what it says is the input of these tests."""

import os
import random
import signal
from collections.abc import AsyncIterator, Sequence

import pytest

from streams.branching import BranchingSettings, Proposal, Samples, branch, propose, sample_policy
from streams.events import BranchRequest, BranchResult, Message, RecordedStep, Task
from streams.policy import PolicyClient
from streams.processes import free_port
from streams.sandboxes.harness import ChatHarness
from streams.sandboxes.pool import SandboxPool

TASK = Task(environment="textworld_express", task_id="twc/train/17", seed=17)
VALID = ["inventory", "look around", "open fridge", "take Green T-shirt", "take hat"]
SETTINGS = BranchingSettings(alternatives=3)


@pytest.fixture
async def pool() -> AsyncIterator[SandboxPool]:
    async with SandboxPool("textworld_express") as sandboxes:
        yield sandboxes


async def recorded(pool: SandboxPool) -> BranchRequest:
    """A demonstration as production recorded it."""
    async with pool.session() as session:
        actions = await session.demonstration(TASK)
        first, *answers = await session.replay(TASK, actions)
    return BranchRequest(
        event_id="request-1",
        episode_id="episode-1",
        task=TASK,
        opening=ChatHarness().opening(first.text),
        steps=tuple(
            RecordedStep(action=action, observation=answer.text)
            for action, answer in zip(actions, answers, strict=True)
        ),
    )


async def fixed_replies(messages: Sequence[Message]) -> Samples:
    return Samples(("Inventory.", "dance", "sing", "take dirty white polo shirt"), "ratchet-1-abc")


async def silence(messages: Sequence[Message]) -> Samples:
    return Samples()


def test_repeats_the_trusted_action_and_nothing_at_all_are_not_proposed() -> None:
    sampled = ["Open Fridge!", "take hat", "TAKE  hat.", "", "  "]
    proposals = propose("open fridge", sampled, VALID, SETTINGS, random.Random(0))
    assert proposals[0] == Proposal("take hat", "policy")
    assert all(proposal.source == "valid_actions" for proposal in proposals[1:])
    assert len({proposal.action for proposal in proposals} - {"open fridge"}) == 3


def test_a_valid_action_is_proposed_in_the_environments_own_spelling() -> None:
    (first, *_) = propose("take hat", ["take green t-shirt."], VALID, SETTINGS, random.Random(0))
    assert first == Proposal("take Green T-shirt", "policy")


def test_few_of_the_proposals_are_errors() -> None:
    sampled = [f"fly to planet {number}" for number in range(20)]
    settings = BranchingSettings(alternatives=10)
    valid = [f"take thing {number}" for number in range(20)]
    proposals = propose("wait", sampled, valid, settings, random.Random(0))
    assert [proposal.source for proposal in proposals] == ["policy"] * 3 + ["valid_actions"] * 7


def test_the_refill_depends_on_the_seed_alone() -> None:
    assert propose("x", [], VALID, SETTINGS, random.Random(5)) == propose("x", [], VALID, SETTINGS, random.Random(5))


def test_fewer_are_proposed_where_fewer_exist() -> None:
    assert propose("wait", [], ["wait", "inventory"], SETTINGS, random.Random(0)) == (
        Proposal("inventory", "valid_actions"),
    )


async def test_every_state_of_an_episode_is_branched(pool: SandboxPool) -> None:
    request = await recorded(pool)
    results = await branch(request, pool, fixed_replies, SETTINGS)
    assert [result.step for result in results] == list(range(len(request.steps)))
    for result in results:
        assert result.fidelity == "sandbox_replayed"
        assert result.policy == "ratchet-1-abc"
        assert result.event_id == BranchResult.id_for("request-1", result.step)
        assert result.requested == len(result.alternatives) == 3
        assert request.steps[result.step].action not in [alternative.action for alternative in result.alternatives]
    opening = {alternative.action: alternative for alternative in results[0].alternatives}
    assert opening["inventory"].observation == "Inventory: \n  Your inventory is currently empty. [score 0.00]"
    assert opening["dance"].observation.startswith("Unknown action")
    assert "sing" not in opening


async def test_the_next_states_are_those_of_the_branched_state(pool: SandboxPool) -> None:
    request = await recorded(pool)
    last = (await branch(request, pool, fixed_replies, SETTINGS))[-1]
    answers = {alternative.action: alternative.observation for alternative in last.alternatives}
    assert request.steps[0].action == "take dirty white polo shirt"
    assert "dirty white shirt" in answers["inventory"]
    assert answers["inventory"].endswith("[score 0.75]")


async def test_the_same_request_gives_the_same_results(pool: SandboxPool) -> None:
    request = await recorded(pool)
    assert await branch(request, pool, silence, SETTINGS) == await branch(request, pool, silence, SETTINGS)


async def test_a_recording_that_the_sandbox_contradicts_is_dropped_from_there_on(pool: SandboxPool) -> None:
    request = await recorded(pool)
    altered = request.steps[1].model_copy(update={"observation": "The shirt bites you. [score 0.50]"})
    diverging = request.model_copy(update={"steps": (request.steps[0], altered, *request.steps[2:])})
    results = await branch(diverging, pool, fixed_replies, SETTINGS)
    assert [result.fidelity for result in results] == ["sandbox_replayed"] * 2 + ["dropped"] * 2
    assert not results[2].alternatives
    assert results[2].requested == 3
    assert "after action 2" in results[2].reason


async def test_an_opening_that_the_sandbox_contradicts_drops_every_state(pool: SandboxPool) -> None:
    request = await recorded(pool)
    other = request.model_copy(update={"opening": ChatHarness().opening("You are in a maze.")})
    results = await branch(other, pool, fixed_replies, SETTINGS)
    assert {result.fidelity for result in results} == {"dropped"}
    assert "at the start" in results[0].reason


async def test_a_reserved_task_is_dropped_with_the_reason(pool: SandboxPool) -> None:
    request = await recorded(pool)
    reserved = request.model_copy(update={"task": Task(environment="textworld_express", task_id="twc/test/1")})
    results = await branch(reserved, pool, fixed_replies, SETTINGS)
    assert all(result.fidelity == "dropped" and "reserved" in result.reason for result in results)


async def test_a_sandbox_killed_on_the_way_costs_no_state(pool: SandboxPool) -> None:
    request = await recorded(pool)
    killed: list[int] = []

    async def kill_once(messages: Sequence[Message]) -> Samples:
        if not killed:
            killed.extend(pool.pids)
            os.kill(killed[0], signal.SIGKILL)
        return Samples()

    results = await branch(request, pool, kill_once, SETTINGS)
    assert {result.fidelity for result in results} == {"sandbox_replayed"}
    with pytest.raises(ProcessLookupError):
        os.kill(killed[0], 0)


async def test_a_policy_that_cannot_be_reached_gives_no_samples_after_its_time() -> None:
    settings = BranchingSettings(policy_url=f"http://127.0.0.1:{free_port()}", policy_patience_s=0.5)
    async with PolicyClient(settings.policy_url) as client:
        assert await sample_policy(client, settings, (Message(role="user", content="go"),)) == Samples()
