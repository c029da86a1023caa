"""Second attempts: with a reflection or a lesson in the prompt, played in a real sandbox, told without it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from fastapi import FastAPI

from evaluation.episode import Player
from evaluation.second_attempts import Adviser, advised
from learners.objectives import OBJECTIVES
from learners.objectives.mel import LESSON, parting
from learners.trajectories import INSTRUCTED, REFLECTED, Rationale
from streams.environments.harness import ChatHarness
from streams.events import Task
from streams.messages import Messages
from streams.policy.client import PolicyClient, Sampling
from streams.sandboxes.pool import SandboxPool, SandboxSession
from tests.builders.trained import attempt
from tests.served import served

TASK = Task(environment="textworld_express", task_id="twc/train/0", seed=0)
HINT = "Follow the known solution."


@dataclass
class Stage:
    """A task in a session, its solution, and everything that the policy was asked."""

    session: SandboxSession
    solution: Messages
    asked: list[list[dict[str, Any]]]
    adviser: Callable[..., Adviser]
    address: str

    def advised_requests(self) -> list[list[dict[str, Any]]]:
        return [chat for chat in self.asked if HINT in chat[0]["content"]]


@asynccontextmanager
async def stage(thought: str = HINT, helps: bool = True) -> AsyncIterator[tuple[Stage, PolicyClient]]:
    """A policy that says `thought` when it is asked for a review, and plays well only if `HINT` is in its prompt."""
    asked: list[list[dict[str, Any]]] = []
    app = FastAPI()
    async with SandboxPool("textworld_express") as pool, pool.session() as session:
        solution = await session.demonstration(TASK)

        @app.post("/v1/chat/completions")
        def chat(body: dict[str, Any]) -> dict[str, Any]:
            messages = body["messages"]
            asked.append(messages)
            turn = sum(message["role"] == "assistant" for message in messages)
            said = "sing"
            if messages[0]["content"].startswith("You review") or messages[0]["content"].startswith("You compare"):
                said = thought
            elif helps and HINT in messages[0]["content"] and turn < len(solution):
                said = solution[turn].text
            return {
                "model": body["model"],
                "choices": [{"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}],
            }

        with served(app) as address:
            async with PolicyClient(address) as client:

                def adviser(harness: ChatHarness | None = None) -> Adviser:
                    return Adviser(Player(client, "policy", harness or ChatHarness(), Sampling()))

                yield Stage(session, solution, asked, adviser, address), client


async def test_a_success_after_a_reflection_is_told_in_the_prompt_without_it() -> None:
    async with stage() as (on, _):
        tried = await on.adviser().attempt_twice(on.session, TASK)
    assert tried.second is not None
    assert (tried.first.success, tried.reflection, tried.second.success) == (False, HINT, True)
    assert tried.second.actor_kind == REFLECTED
    assert tried.second.origin == "practice"
    assert tuple(step.action for step in tried.second.steps) == on.solution
    assert tried.second.opening == tried.first.opening
    assert HINT not in str(tried.second.opening)
    assert on.advised_requests()
    found = OBJECTIVES["erl"].examples([tried.first, tried.second])
    assert [example.trajectory for example in found] == [tried.second]


async def test_the_reflection_is_asked_for_with_the_attempt_and_its_outcome() -> None:
    async with stage() as (on, _):
        await on.adviser().attempt_twice(on.session, TASK)
        (review,) = [chat for chat in on.asked if chat[0]["content"].startswith("You review")]
    assert "assistant: sing" in review[1]["content"]
    assert "The attempt failed. Its score: 0.00" in review[1]["content"]


async def test_an_attempt_that_succeeds_at_once_is_not_repeated() -> None:
    async with stage() as (on, _):
        tried = await on.adviser(advised(ChatHarness(), HINT)).attempt_twice(on.session, TASK)
    assert tried.first.success
    assert (tried.reflection, tried.second) == ("", None)


async def test_without_a_reflection_there_is_no_second_attempt() -> None:
    async with stage(thought="  ") as (on, _):
        tried = await on.adviser().attempt_twice(on.session, TASK)
    assert (tried.first.success, tried.second) == (False, None)


async def test_a_second_attempt_that_fails_too_is_not_learned_from() -> None:
    async with stage(helps=False) as (on, _):
        tried = await on.adviser().attempt_twice(on.session, TASK)
    assert tried.second is not None
    assert not tried.second.success
    assert not OBJECTIVES["erl"].examples([tried.first, tried.second])


async def test_a_harness_without_a_system_message_gets_none_in_what_is_learned() -> None:
    async with stage() as (on, _):
        tried = await on.adviser(ChatHarness(system_prompt="")).attempt_twice(on.session, TASK)
    assert tried.second is not None
    assert tried.second.success
    assert [message.role for message in tried.second.opening] == ["user"]


async def test_a_lesson_with_which_the_task_succeeds_is_kept_for_the_state_where_the_attempts_part() -> None:
    async with stage() as (on, _):
        failure = await on.adviser().attempt(on.session, TASK)
        success = replace(await on.adviser().attempt(on.session, TASK, HINT), actor_kind="policy")
        learned = await on.adviser().learn_lesson(on.session, TASK, success, failure)
    assert learned is not None
    assert learned.actor_kind == INSTRUCTED
    assert learned.rationales == (Rationale(0, HINT, LESSON),)
    assert learned.opening == failure.opening


async def test_a_lesson_with_which_the_task_fails_is_not_kept() -> None:
    async with stage() as (on, _):
        failure = await on.adviser().attempt(on.session, TASK)
        success = await on.adviser().attempt(on.session, TASK, HINT)
    async with stage(helps=False) as (on, _):
        assert await on.adviser().learn_lesson(on.session, TASK, success, failure) is None
        assert on.advised_requests()


async def test_attempts_that_never_part_teach_no_lesson() -> None:
    one = attempt(1, "look", "sing", score=1.0)
    async with stage() as (on, _):
        assert await on.adviser().learn_lesson(on.session, TASK, one, one) is None
        assert not on.asked


@pytest.mark.parametrize(
    ("success", "failure", "step"),
    [
        (("look", "take plate"), ("Look.", "sing"), 1),
        (("take plate",), ("sing", "sing"), 0),
        (("look",), ("look", "sing"), None),
    ],
)
def test_two_attempts_part_where_they_act_otherwise(
    success: tuple[str, ...], failure: tuple[str, ...], step: int | None
) -> None:
    assert parting(attempt(1, *success, score=1.0), attempt(2, *failure, score=0.0)) == step


def test_attempts_at_other_tasks_or_in_other_states_do_not_part() -> None:
    success, failure = attempt(1, "look", "take plate", score=1.0), attempt(2, "look", "sing", score=0.0)
    other = failure.steps[0].model_copy(update={"observation": success.opening[1:]})
    assert parting(success, replace(failure, opening=failure.opening[:1])) is None
    assert parting(success, replace(failure, steps=(other, failure.steps[1]))) is None
