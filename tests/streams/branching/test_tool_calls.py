"""Branching and recovery of episodes whose actions are tool calls, in real sandboxes."""

from collections.abc import AsyncIterator, Sequence

import pytest

from ratchet_client.events import Task
from ratchet_client.messages import Message, Tools, assistant, call, user
from streams.branch_events import BranchRequest, RecordedStep
from streams.branching.branch import branch
from streams.branching.recovery import recover
from streams.branching.selectors import Curiosity, Uniform
from streams.branching.selectors.selector import Situation
from streams.branching.settings import BranchingSettings, RecoverySettings
from streams.policy.client import Sampling
from streams.policy.served import Samples
from streams.sandboxes.pool import SandboxPool
from tests.builders.branch_requests import played
from tests.builders.policies import FixedPolicy
from tests.builders.selectors import Late


@pytest.fixture
async def bfcl() -> AsyncIterator[SandboxPool]:
    async with SandboxPool("bfcl", size=2) as pool:
        yield pool


async def demonstrated(pool: SandboxPool, game: str = "multi_turn_base") -> BranchRequest:
    """The beginning of the first task's demonstration, up to the first message to the user."""
    task = (await pool.tasks(game, "train"))[0]
    demonstration = await pool.demonstration(task)
    spoken = next(number for number, action in enumerate(demonstration) if not action.calls)
    return await played(pool, task, demonstration[: spoken + 1])


async def test_the_policys_calls_are_tried_as_it_made_them_and_mutations_fill_the_rest(bfcl: SandboxPool) -> None:
    request = await demonstrated(bfcl)
    looks = assistant("Let me look.", call("pwd", "{}", "call_a"), call("ls", '{"a": true}', "call_b"), reasoning="Hm.")
    policy = FixedPolicy((looks, request.steps[0].action.model_copy(update={"content": "Sure."})))
    settings = BranchingSettings(alternatives=4, samples=2, temperatures=(0.7, 1.0))
    results = await branch(request, bfcl, policy, Uniform(), settings)
    assert {(result.fidelity, result.reason) for result in results} == {("sandbox_exact", "")}
    first = results[0].alternatives
    # Words beside the recorded call do not make another action of it.
    assert [each.source for each in first] == ["policy", *["mutation"] * 3]
    assert first[0].action == looks
    assert [(each.role, each.tool_call_id) for each in first[0].observation] == [("tool", "call_a"), ("tool", "call_b")]
    for result in results:
        ids = [each.id for alternative in result.alternatives for each in alternative.action.calls]
        answered = [each.tool_call_id for alternative in result.alternatives for each in alternative.observation]
        assert [identity for identity in answered if identity is not None] == ids
    assert policy.offered == [request.tools(step) for step in range(len(request.steps))]
    assert request.tools(0)
    assert set(policy.samplings) == {Sampling(temperature=t, max_tokens=256, stop=()) for t in (0.7, 1.0)}


async def test_limits_of_the_settings_come_before_those_of_the_environment(bfcl: SandboxPool) -> None:
    request, policy = (await demonstrated(bfcl)).up_to(0), FixedPolicy()
    settings = BranchingSettings(temperatures=(1.0,), max_tokens=99, stop=("###",))
    await branch(request, bfcl, policy, Uniform(), settings)
    assert policy.samplings == [Sampling(temperature=1.0, max_tokens=99, stop=("###",))]


async def test_a_call_that_the_policy_shares_with_a_mutation_keeps_its_words(bfcl: SandboxPool) -> None:
    request = (await demonstrated(bfcl)).up_to(0)
    settings = BranchingSettings(alternatives=9)
    (alone,) = await branch(request, bfcl, FixedPolicy(), Uniform(), settings)
    same = alone.alternatives[0].action
    said = same.model_copy(update={"content": "I would rather do this.", "reasoning_content": "Hm."})
    (result,) = await branch(request, bfcl, FixedPolicy((said,)), Uniform(), settings)
    assert (result.alternatives[0].source, result.alternatives[0].action) == ("policy", said)
    assert same not in [each.action for each in result.alternatives]


async def test_parallel_results_in_the_agents_order_and_instructions_of_its_own_are_the_recorded_state(
    bfcl: SandboxPool,
) -> None:
    task = (await bfcl.tasks("multi_turn_base", "train"))[0]
    both = assistant(None, call("pwd", "{}", "call_a"), call("ls", "{}", "call_b"))
    request = await played(bfcl, task, (both, assistant(None, call("ls", "{}", "call_c"))))
    first, second = request.steps
    swapped = first.model_copy(update={"observation": first.observation[::-1]})
    instructions = (user("Rules: be brief."), assistant("Yes."))
    for opening in (request.opening, (*instructions, *request.opening[1:]), request.opening[1:]):
        altered = request.model_copy(update={"steps": (swapped, second), "opening": opening})
        results = await branch(altered, bfcl, FixedPolicy(), Uniform(), BranchingSettings())
        assert {(result.fidelity, result.reason) for result in results} == {("sandbox_exact", "")}
        # A third message before what the user says is the agent's own, too.
        context = altered.model_copy(update={"opening": (*opening[:-1], user("Today is Monday."), opening[-1])})
        results = await branch(context, bfcl, FixedPolicy(), Uniform(), BranchingSettings())
        assert {(result.fidelity, result.reason) for result in results} == {("sandbox_exact", "")}


async def test_likelihoods_belong_to_the_steps_that_were_answered(bfcl: SandboxPool) -> None:
    request = await demonstrated(bfcl)
    examples = (user("Example."), assistant("Example."), user("Good."))
    last = RecordedStep(action=assistant("Done."), observation=())
    altered = request.model_copy(
        update={"opening": (*examples, *request.opening), "steps": (*request.steps[:-1], last)}
    )
    told: list[float | None] = []

    class Numbered(FixedPolicy):
        async def negative_log_likelihoods(self, messages: object, tools: object) -> tuple[float, ...]:
            return (99.0, *map(float, range(len(request.steps) - 1)))

    class Listening(Curiosity):
        def weigh(self, situations: Sequence[Situation]) -> list[float]:
            told.extend(situation.negative_log_likelihood for situation in situations)
            return super().weigh(situations)

    await branch(altered, bfcl, Numbered(), Listening(), BranchingSettings())
    assert told == [*map(float, range(len(request.steps) - 1)), None]


async def test_a_failed_episode_is_recovered_from_with_calls_and_the_tools_that_come_with_them(
    bfcl: SandboxPool,
) -> None:
    task: Task = (await bfcl.tasks("multi_turn_miss_func", "train"))[0]
    right = await played(bfcl, task)
    # The agent gives up on the first turn; the recovery does it all.
    failed = (await played(bfcl, task, (assistant("I cannot."),) * 3)).model_copy(update={"verdict": "failed"})
    offered: list[int] = []

    class Rehearsed(FixedPolicy):
        """Goes on with the demonstration, by the number of messages that it has sent."""

        async def sample(
            self, messages: Sequence[Message], tools: Tools, samplings: Sequence[Sampling], samples: int
        ) -> Samples:
            offered.append(len(tools))
            number = sum(message.role == "assistant" for message in messages)
            return Samples((right.steps[number].action,) * samples, "ratchet-2-def")

    settings = BranchingSettings(samples=1, temperatures=(1.0,), recovery=RecoverySettings(attempts=3, steps=40))
    result = await recover(failed, bfcl, Rehearsed(), First(), settings)
    (recovery,) = result.recoveries
    assert recovery.left_at == 0
    assert [step.action for step in recovery.steps] == [step.action for step in right.steps]
    assert recovery.steps == right.steps
    assert len(set(offered)) == 2


class First(Late):
    """All continuations begin at the first state."""

    def weigh(self, situations: Sequence[Situation]) -> list[float]:
        return [float(situation.step == 0) for situation in situations]
