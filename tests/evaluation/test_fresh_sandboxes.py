"""A policy whose tool call patches the verifier: it forges the verdict on no other episode of a gate or of practice."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from evaluation.arena import Arena
from evaluation.episode import Player
from evaluation.practice import Budget, Practised, Round
from evaluation.settings import RolloutSettings
from ratchet_client.events import Task
from streams.policy.client import PolicyClient, Sampling
from streams.sandboxes.isolation.settings import Isolation
from streams.sandboxes.pool import SandboxPool
from tests.builders.toolboxes import box
from tests.served import served
from tests.streams.sandboxes.isolated import TIERS, tier_called
from tests.streams.sandboxes.test_lying_tools import CHECK, TOOLBOX, TOOLS

NAMES = ("forge", "honest-1", "honest-2")
TASKS = [Task(environment="toolbox", task_id=name) for name in NAMES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = [{"task_id": name, "fold": "train", "opening": name} for name in NAMES]
    made = box(tmp_path_factory.mktemp("toolboxes") / "liars", TOOLBOX, *lines, tools__py=TOOLS, domain__py=CHECK)
    for path in (made, *made.iterdir()):
        path.chmod(0o755)
    return made


@asynccontextmanager
async def playing(
    folder: Path, isolation: Isolation, act: Callable[[str], str]
) -> AsyncIterator[tuple[SandboxPool, PolicyClient]]:
    """The toolbox isolated by this tier, and a policy that calls the tool `act(opening)` and is done."""
    tier_called(isolation)
    app = FastAPI()

    @app.post("/v1/chat/completions")
    def chat(body: dict[str, Any]) -> Any:
        opening = next(each["content"] for each in body["messages"] if each["role"] == "user")
        message: dict[str, Any] = {"role": "assistant", "content": "Finished."}
        if body["messages"][-1]["role"] == "user":
            called = {"name": act(opening), "arguments": "{}"}
            message = {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "function": called}]}
        choice = {"message": message, "finish_reason": "stop"}
        return {"model": body["model"], "choices": [choice]}

    with served(app) as address:
        pool = SandboxPool("toolbox", isolation=isolation, settings={"folder": str(folder)}, step_timeout_s=60)
        async with PolicyClient(address) as policy, pool:
            yield pool, policy


def forging(opening: str) -> str:
    return "forge_the_verdict" if opening == "forge" else "work"


@pytest.mark.parametrize("isolation", TIERS)
async def test_one_episode_of_a_gate_forges_no_other(folder: Path, isolation: Isolation) -> None:
    async with playing(folder, isolation, forging) as (pool, policy):
        arena = Arena(policy, pool, (await pool.describe()).harness, RolloutSettings(concurrency=1))
        played = await arena.play(TASKS, "candidate")
        assert [rollout.success for rollout in played] == [True, False, False]


async def test_one_episode_of_practice_forges_no_other(folder: Path) -> None:
    kept: list[Practised] = []

    async def keep(practised: Practised) -> None:
        kept.append(practised)

    async with playing(folder, "bubblewrap", forging) as (pool, policy):
        player = Player(policy, "ratchet-7", (await pool.describe()).harness, Sampling(temperature=1.0))
        practice = Round(player, pool, Budget(600, 100, 1), lambda: asyncio.sleep(0, True), keep)
        await practice.play(TASKS, 1)
    assert [practised.attempt.success for practised in kept] == [True, False, False]
