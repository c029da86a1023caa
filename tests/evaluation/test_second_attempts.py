"""Second attempts: with a reflection or a lesson in the prompt, played in a real sandbox, told without it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import pytest_asyncio
from fastapi import FastAPI

from evaluation.episode import Player
from evaluation.second_attempts import Adviser, advised
from learners.objectives import OBJECTIVES
from learners.trajectories import INSTRUCTED, LESSON, REFLECTED, Rationale
from ratchet_client.events import Task
from ratchet_client.messages import Messages
from streams.environments.harness import ChatHarness
from streams.policy.client import PolicyClient, Sampling
from streams.sandboxes.pool import SandboxPool, SandboxSession
from tests.builders.trained import attempt
from tests.served import served

# One sandbox process for all tests of this file.
pytestmark = pytest.mark.asyncio(loop_scope="module")

TASK = Task(environment="textworld_express", task_id="twc/train/0", seed=0)
HINT = "Follow the known solution."


@dataclass(frozen=True)
class Stage:
    """A session in which the task can be played, and the task's solution."""

    session: SandboxSession
    solution: Messages

    @asynccontextmanager
    async def policy(self, thought: str = HINT, *, helps: bool = True) -> AsyncIterator["Policy"]:
        """One that says `thought` when it is asked for a review, and plays well only if `HINT` is in its prompt."""
        asked: list[list[dict[str, Any]]] = []
        app = FastAPI()

        @app.post("/v1/chat/completions")
        def chat(body: dict[str, Any]) -> dict[str, Any]:
            messages = body["messages"]
            asked.append(messages)
            turn = sum(message["role"] == "assistant" for message in messages)
            said = "sing"
            if messages[0]["content"].startswith(("You review", "You compare")):
                said = thought
            elif helps and HINT in messages[0]["content"] and turn < len(self.solution):
                said = self.solution[turn].text
            message = {"role": "assistant", "content": said}
            return {"model": body["model"], "choices": [{"message": message, "finish_reason": "stop"}]}

        with served(app) as address:
            async with PolicyClient(address) as client:
                yield Policy(client, asked)


@dataclass(frozen=True)
class Policy:
    client: PolicyClient
    asked: list[list[dict[str, Any]]] = field(repr=False)

    def adviser(self, harness: ChatHarness = ChatHarness()) -> Adviser:  # noqa: B008 - frozen
        return Adviser(Player(self.client, "policy", harness, Sampling()))

    def advised_requests(self) -> list[list[dict[str, Any]]]:
        return [chat for chat in self.asked if HINT in chat[0]["content"]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def on() -> AsyncIterator[Stage]:
    async with SandboxPool("textworld_express") as pool, pool.session() as session:
        yield Stage(session, await session.demonstration(TASK))


async def test_a_success_after_a_reflection_is_told_in_the_prompt_without_it(on: Stage) -> None:
    async with on.policy() as policy:
        tried = await policy.adviser().attempt_twice(on.session, TASK)
    assert tried.second is not None
    assert (tried.first.success, tried.reflection, tried.second.success) == (False, HINT, True)
    assert tried.second.actor_kind == REFLECTED
    assert tried.second.origin == "practice"
    assert tuple(step.action for step in tried.second.steps) == on.solution
    assert tried.second.opening == tried.first.opening
    assert HINT not in str(tried.second.opening)
    assert policy.advised_requests()
    found = OBJECTIVES["erl"].examples([tried.first, tried.second])
    assert [example.trajectory for example in found] == [tried.second]


async def test_the_reflection_is_asked_for_with_the_attempt_and_its_outcome(on: Stage) -> None:
    async with on.policy() as policy:
        await policy.adviser().attempt_twice(on.session, TASK)
        (review,) = [chat for chat in policy.asked if chat[0]["content"].startswith("You review")]
    assert "assistant: sing" in review[1]["content"]
    assert "The attempt failed. Its score: 0.00" in review[1]["content"]


async def test_an_attempt_that_succeeds_at_once_is_not_repeated(on: Stage) -> None:
    async with on.policy() as policy:
        tried = await policy.adviser(advised(ChatHarness(), HINT)).attempt_twice(on.session, TASK)
    assert tried.first.success
    assert (tried.reflection, tried.second) == ("", None)


async def test_without_a_reflection_there_is_no_second_attempt(on: Stage) -> None:
    async with on.policy("  ") as policy:
        tried = await policy.adviser().attempt_twice(on.session, TASK)
    assert (tried.first.success, tried.second) == (False, None)


async def test_a_second_attempt_that_fails_too_is_not_learned_from(on: Stage) -> None:
    async with on.policy(helps=False) as policy:
        tried = await policy.adviser().attempt_twice(on.session, TASK)
    assert tried.second is not None
    assert not tried.second.success
    assert not OBJECTIVES["erl"].examples([tried.first, tried.second])


async def test_a_harness_without_a_system_message_gets_none_in_what_is_learned(on: Stage) -> None:
    async with on.policy() as policy:
        tried = await policy.adviser(ChatHarness(system_prompt="")).attempt_twice(on.session, TASK)
    assert tried.second is not None
    assert tried.second.success
    assert [message.role for message in tried.second.opening] == ["user"]


async def test_a_lesson_with_which_the_task_succeeds_is_kept_for_the_state_where_the_attempts_part(on: Stage) -> None:
    async with on.policy() as policy:
        failure = await policy.adviser().attempt(on.session, TASK)
        success = replace(await policy.adviser().attempt(on.session, TASK, HINT), actor_kind="policy")
        learned = await policy.adviser().learn_lesson(on.session, TASK, success, failure)
    assert learned is not None
    assert learned.actor_kind == INSTRUCTED
    assert learned.rationales == (Rationale(0, HINT, LESSON),)
    assert learned.opening == failure.opening


async def test_a_lesson_with_which_the_task_fails_is_not_kept(on: Stage) -> None:
    async with on.policy() as policy:
        failure = await policy.adviser().attempt(on.session, TASK)
        success = await policy.adviser().attempt(on.session, TASK, HINT)
    async with on.policy(helps=False) as policy:
        assert await policy.adviser().learn_lesson(on.session, TASK, success, failure) is None
        assert policy.advised_requests()


async def test_attempts_that_never_part_teach_no_lesson(on: Stage) -> None:
    one = attempt(1, "look", "sing", score=1.0)
    async with on.policy() as policy:
        assert await policy.adviser().learn_lesson(on.session, TASK, one, one) is None
        assert not policy.asked
