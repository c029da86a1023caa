from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI

from evaluation.gates.significance import Verdict, evaluate
from evaluation.rollouts import play
from evaluation.settings import GateSettings, RolloutSettings
from streams.environments.harness import ChatHarness
from streams.errors import PolicyError, SandboxError
from streams.events import Task
from streams.policy.client import PolicyClient
from streams.sandboxes.pool import SandboxPool
from streams.trust.holdout import HoldoutSettings
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
        first = await play(tasks(6), "base", policy, pool, harness, SETTINGS, lambda done, of: told.append((done, of)))
        again = await play(tasks(6), "base", policy, pool, harness, SETTINGS)
    assert [rollout.task_id for rollout in first] == [task.task_id for task in tasks(6)]
    assert first == again
    for rollout in first:
        assert (rollout.success, rollout.steps, len(rollout.actions)) == (False, 3, 3)
        assert rollout.invalid_actions == 3
    assert told[-1] == (6, 6)
    assert told == sorted(told)


@asynccontextmanager
async def expert(pool: SandboxPool, solved: list[Task]) -> AsyncIterator[PolicyClient]:
    """A policy that knows the solutions of the tasks `solved` and says nonsense in others."""
    solutions: dict[str, tuple[str, ...]] = {}
    async with pool.session() as session:
        for task in solved:
            solution = await session.demonstration(task)
            solutions[(await session.reset(task)).text] = solution
    app = FastAPI()

    @app.post("/v1/chat/completions")
    def chat(body: dict[str, Any]) -> dict[str, Any]:
        messages = body["messages"]
        turn, solution = len(messages) // 2 - 1, solutions.get(messages[1]["content"], ())
        text = solution[turn] if turn < len(solution) else "sing"
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return {"model": body["model"], "choices": [choice]}

    with served(app) as address:
        async with PolicyClient(address) as client:
            yield client


async def test_a_policy_that_knows_the_solution_succeeds_and_one_that_repeats_itself_gives_up() -> None:
    async with SandboxPool("textworld_express") as pool, expert(pool, tasks(6)[:4]) as policy:
        rollouts = await play(tasks(6), "expert", policy, pool, ChatHarness(), SETTINGS)
    assert [rollout.success for rollout in rollouts] == [True] * 4 + [False] * 2
    for rollout in rollouts[:4]:
        assert (rollout.score, rollout.invalid_actions) == (1.0, 0)
        assert rollout.steps < 15
    patience = ChatHarness().patience
    for rollout in rollouts[4:]:
        assert (rollout.steps, rollout.invalid_actions) == (patience, patience)


async def test_the_simulator_says_when_it_did_not_understand() -> None:
    async with SandboxPool("textworld_express") as pool, pool.session() as session:
        await session.reset(tasks(1)[0])
        assert not (await session.step("dance with the fridge")).understood
        for action in await session.valid_actions():
            assert (await session.step(action)).understood


async def test_both_sides_of_a_gate_play_the_same_tasks(policy: PolicyClient) -> None:
    settings = GateSettings(min_tasks=3, rollouts=SETTINGS)
    everything_held_out = HoldoutSettings(selection=1.0, confirmation=0.0)
    told: list[tuple[int, int]] = []
    async with SandboxPool("textworld_express") as pool:
        evaluation = await evaluate(
            tasks(3),
            "base",
            "base",
            policy,
            pool,
            ChatHarness(max_steps=3),
            settings,
            everything_held_out,
            lambda done, of: told.append((done, of)),
        )
    assert evaluation.champion_rollouts == evaluation.candidate_rollouts
    assert evaluation.decision.verdict is Verdict.INCONCLUSIVE
    assert told[-1] == (6, 6)


async def test_a_model_that_is_not_served_and_a_reserved_task_are_errors_and_not_failed_episodes(
    policy: PolicyClient,
) -> None:
    async with SandboxPool("textworld_express") as pool:
        with pytest.raises(PolicyError, match="ratchet-9-gone"):
            await play(tasks(2), "ratchet-9-gone", policy, pool, ChatHarness(), SETTINGS)
        reserved = Task(environment="textworld_express", task_id="twc/test/1", seed=1)
        with pytest.raises(SandboxError, match="reserved"):
            await play([reserved], "base", policy, pool, ChatHarness(), SETTINGS)
