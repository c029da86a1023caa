from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from evaluation.arena import Arena
from evaluation.settings import RolloutSettings
from ratchet_client.events import Task
from ratchet_client.messages import Messages, assistant
from streams.environments.harness import ChatHarness
from streams.errors import ContextLengthError, PolicyError, SandboxError
from streams.policy.client import PolicyClient, Sampling
from streams.sandboxes.pool import SandboxPool
from tests.served import served

SETTINGS = RolloutSettings(concurrency=4)


def tasks(count: int) -> list[Task]:
    return [Task(environment="textworld_express", task_id=f"twc/train/{n}", seed=n) for n in range(count)]


async def test_an_untrained_model_plays_every_task_to_its_end_and_identically_twice(
    policy: PolicyClient,
) -> None:
    told: list[tuple[int, int]] = []
    harness = ChatHarness(max_steps=3)
    async with SandboxPool("textworld_express") as pool:
        first = await Arena(policy, pool, harness, SETTINGS).play(
            tasks(6), "base", lambda done, of: told.append((done, of))
        )
        again = await Arena(policy, pool, harness, SETTINGS).play(tasks(6), "base")
    assert [rollout.task_id for rollout in first] == [task.task_id for task in tasks(6)]
    assert first == again
    for rollout in first:
        assert (rollout.success, rollout.steps, len(rollout.actions)) == (False, 3, 3)
        assert rollout.invalid_actions == 3
    assert told[-1] == (6, 6)
    assert told == sorted(told)


@asynccontextmanager
async def expert(pool: SandboxPool, solved: Sequence[Task], asked: list[dict[str, Any]]) -> AsyncIterator[PolicyClient]:
    """A policy that knows the solutions of the tasks `solved` and says nonsense in others; notes what it is asked."""
    solutions: dict[str, Messages] = {}
    async with pool.session() as session:
        for task in solved:
            solution = await session.demonstration(task)
            solutions[(await session.reset(task)).text] = solution
    app = FastAPI()

    @app.post("/v1/chat/completions")
    def chat(body: dict[str, Any]) -> dict[str, Any]:
        asked.append(body)
        messages = body["messages"]
        turn = sum(message["role"] == "assistant" for message in messages)
        solution = solutions.get(messages[1]["content"], ())
        said = solution[turn] if turn < len(solution) else assistant("sing")
        # As vLLM replies, nulls and empty lists included.
        message: dict[str, Any] = {"refusal": None, "tool_calls": [], "reasoning": None, "content": None}
        message |= said.model_dump(mode="json", exclude_none=True)
        return {"model": body["model"], "choices": [{"message": message, "finish_reason": "stop"}]}

    with served(app) as address:
        async with PolicyClient(address) as client:
            yield client


async def test_a_policy_that_knows_the_solution_succeeds_and_one_that_repeats_itself_gives_up() -> None:
    asked: list[dict[str, Any]] = []
    async with SandboxPool("textworld_express") as pool, expert(pool, tasks(6)[:4], asked) as policy:
        rollouts = await Arena(policy, pool, ChatHarness(), SETTINGS).play(tasks(6), "expert")
    assert [rollout.success for rollout in rollouts] == [True] * 4 + [False] * 2
    for rollout in rollouts[:4]:
        assert (rollout.score, rollout.invalid_actions) == (1.0, 0)
        assert rollout.steps < 15
    patience = ChatHarness().patience
    for rollout in rollouts[4:]:
        assert (rollout.steps, rollout.invalid_actions) == (patience, patience)
    for body in asked:
        assert (body["max_tokens"], body["stop"], body["temperature"]) == (16, ["\n"], 0)
        assert "tools" not in body


async def test_tools_are_offered_called_and_answered_and_new_ones_are_offered_when_they_come() -> None:
    asked: list[dict[str, Any]] = []
    async with SandboxPool("bfcl") as pool:
        harness = (await pool.describe()).harness
        listed = await pool.tasks("multi_turn_miss_func", "train")
        async with expert(pool, listed[:3], asked) as policy:
            rollouts = await Arena(policy, pool, harness, SETTINGS).play(listed[:3], "expert")
        demonstrations = [await pool.demonstration(task) for task in listed[:3]]
    for rollout, demonstration in zip(rollouts, demonstrations, strict=True):
        assert (rollout.success, rollout.score, rollout.invalid_actions) == (True, 1.0, 0)
        assert rollout.actions == demonstration
    assert {(body["max_tokens"], tuple(body["stop"])) for body in asked} == {(256, ())}
    longest = max(asked, key=lambda body: len(body["messages"]))
    assert None not in [value for message in longest["messages"] for value in message.values()]
    results = {message["tool_call_id"] for message in longest["messages"] if message["role"] == "tool"}
    called = [call["id"] for message in longest["messages"] for call in message.get("tool_calls", ())]
    assert results == set(called)
    # A tool that is missing at first is offered later.
    first = next(body for body in asked if body["messages"] == longest["messages"][: len(body["messages"])])
    offered, later = ({tool["function"]["name"] for tool in body["tools"]} for body in (first, longest))
    assert offered < later
    assert longest["tools"] in [list(rollout.tools) for rollout in rollouts]


@pytest.mark.slow
@pytest.mark.parametrize(
    "refusal",
    [
        {"error": {"message": "the prompt has 2048 tokens", "code": "context_length_exceeded"}},
        {"error": {"message": "This model's maximum context length is 2048 tokens. However, …", "code": 400}},
    ],
)
async def test_an_episode_that_the_server_has_no_room_for_ends_as_a_failure(refusal: dict[str, Any]) -> None:
    app, room = FastAPI(), 4

    @app.post("/v1/chat/completions")
    def chat(body: dict[str, Any]) -> JSONResponse:
        if len(body["messages"]) > room:
            return JSONResponse(refusal, 400)
        choice = {"message": {"role": "assistant", "content": "look around"}, "finish_reason": "stop"}
        return JSONResponse({"model": body["model"], "choices": [choice]})

    with served(app) as address:
        async with SandboxPool("textworld_express") as pool, PolicyClient(address) as policy:
            (rollout,) = await Arena(policy, pool, ChatHarness(), SETTINGS).play(tasks(1), "talkative")
            room = 1
            with pytest.raises(ContextLengthError):
                await Arena(policy, pool, ChatHarness(), SETTINGS).play(tasks(1), "talkative")
    assert (rollout.success, rollout.steps) == (False, 2)


async def test_limits_that_are_set_come_before_those_of_the_harness() -> None:
    asked: list[dict[str, Any]] = []
    settings = RolloutSettings(sampling=Sampling(max_tokens=7, stop=("!",), temperature=0.5), concurrency=4)
    async with SandboxPool("textworld_express") as pool, expert(pool, (), asked) as policy:
        await Arena(policy, pool, ChatHarness(), settings).play(tasks(1), "expert")
    assert {(body["max_tokens"], tuple(body["stop"]), body["temperature"]) for body in asked} == {(7, ("!",), 0.5)}


async def test_the_simulator_says_when_it_did_not_understand() -> None:
    async with SandboxPool("textworld_express") as pool, pool.session() as session:
        await session.reset(tasks(1)[0])
        assert not (await session.step(assistant("dance with the fridge"))).understood
        for action in await session.valid_actions():
            assert (await session.step(assistant(action))).understood


@pytest.mark.slow
async def test_a_model_that_is_not_served_and_a_reserved_task_are_errors_and_not_failed_episodes(
    policy: PolicyClient,
) -> None:
    async with SandboxPool("textworld_express") as pool:
        with pytest.raises(PolicyError, match="ratchet-9-gone"):
            await Arena(policy, pool, ChatHarness(), SETTINGS).play(tasks(2), "ratchet-9-gone")
        reserved = Task(environment="textworld_express", task_id="twc/test/1", seed=1)
        with pytest.raises(SandboxError, match="reserved"):
            await Arena(policy, pool, ChatHarness(), SETTINGS).play([reserved], "base")
