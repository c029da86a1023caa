"""Episodes played for practice, in real sandboxes, by a policy whose words are given."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from evaluation.episode import Player
from evaluation.practice import Budget, Practised, Round
from ratchet_client.events import OutcomeEvent, StepEvent, Task
from streams.environments.harness import ChatHarness
from streams.errors import PolicyError
from streams.policy.client import PolicyClient, Sampling
from streams.sandboxes.pool import SandboxPool
from streams.trust.practice import PRINCIPAL, VERIFIER
from tests.served import served

END = "<|im_end|>"
HARNESS = ChatHarness(system_prompt="Light the lamp.", max_steps=2)


def tasks(number: int) -> list[Task]:
    return [Task(environment="faulty_dark", task_id=f"dark/train/{name}") for name in range(number)]


def reply(tokens: Sequence[str], finish_reason: str = "stop") -> dict[str, Any]:
    """A reply of these tokens, of which none is told that begins with `<` or stands after a line break."""
    text = "".join(token for token in tokens if not token.startswith("<")).partition("\n")[0]
    told = [{"token": token, "logprob": -0.5 * number} for number, token in enumerate(tokens, 1)]
    message = {"role": "assistant", "content": text}
    return {"message": message, "finish_reason": finish_reason, "logprobs": {"content": told}}


@asynccontextmanager
async def policy_saying(say: Callable[[int], dict[str, Any] | None], asked: list[Any]) -> AsyncIterator[PolicyClient]:
    """A policy whose n-th reply is `say(n)`; where that is None, it refuses."""
    app, numbers = FastAPI(), count()

    @app.post("/v1/chat/completions")
    def chat(body: dict[str, Any]) -> Any:
        asked.append(body)
        choice = say(next(numbers))
        if choice is None:
            return JSONResponse({"error": {"message": "no"}}, status_code=500)
        return {"model": body["model"], "choices": [choice]}

    with served(app) as address:
        async with PolicyClient(address) as client:
            yield client


async def at_once() -> bool:
    return True


async def played(
    say: Callable[[int], dict[str, Any] | None],
    budget: Budget,
    number: int = 2,
    samples: int = 2,
    asked: list[Any] | None = None,
    may_begin: Callable[[], Awaitable[bool]] = at_once,
) -> tuple[Round, list[Practised]]:
    kept: list[Practised] = []

    async def keep(practised: Practised) -> None:
        kept.append(practised)

    asked = [] if asked is None else asked
    async with SandboxPool("faulty_dark") as pool, policy_saying(say, asked) as policy:
        player = Player(policy, "ratchet-7", HARNESS, Sampling(temperature=1.0), logprobs=True)
        practice = Round(player, pool, budget, may_begin, keep, agent="ratchet-practice/acme")
        await practice.play(tasks(number), samples)
    return practice, kept


@pytest.mark.usefixtures("faulty_environments")
async def test_each_sample_becomes_the_events_of_an_episode_of_its_own() -> None:
    asked: list[Any] = []
    said = [reply(["sing", END]), reply(["li", "ght", END]), reply(["li", "ght", END])]
    practice, kept = await played(lambda n: said[n % 3], Budget(60, 100, 1), 1, 2, asked)
    assert (practice.episodes, practice.successes, practice.steps) == (2, 2, 3)
    assert {(body["temperature"], body["logprobs"], body["n"]) for body in asked} == {(1.0, True, 1)}
    first, second, outcome = kept[0].events
    assert isinstance(first, StepEvent)
    assert isinstance(second, StepEvent)
    assert isinstance(outcome, OutcomeEvent)
    assert len({practised.events[0].event_id for practised in kept}) == 2
    assert len({event.event_id for practised in kept for event in practised.events}) == 5
    assert {event.origin for practised in kept for event in practised.events} == {"practice"}
    assert {first.agent, second.agent} == {"ratchet-practice/acme"}
    assert (first.step, second.step, first.done, second.done) == (0, 1, False, True)
    assert (first.principal, first.actor.kind, first.actor.adapter) == (PRINCIPAL, "policy", "ratchet-7")
    assert second.messages == (*first.messages, first.action, *first.observation)
    assert (first.action.text, second.action.text) == ("sing", "light")
    assert second.log_probabilities == (-0.5, -1.0, -1.5)
    assert (outcome.verifier, outcome.success, outcome.score) == (VERIFIER, True, 1.0)


@pytest.mark.usefixtures("faulty_environments")
async def test_log_probabilities_are_kept_where_they_are_of_the_very_action() -> None:
    said = {
        "its own end": reply(["light", END]),
        "a stop text": reply(["light", "\n"]),
        "part of a token": reply(["light", "\nThen"]),
        "stripped": reply([" light", END]),
        "cut off": reply(["light"], "length"),
        "not told": reply(["light"]) | {"logprobs": None},
    }
    _, kept = await played(lambda n: [*said.values()][n], Budget(60, 100, 1), 1, len(said))
    first = [practised.events[0] for practised in kept]
    known = [isinstance(step, StepEvent) and bool(step.log_probabilities) for step in first]
    assert dict(zip(said, known, strict=True)) == {name: name == "its own end" for name in said}


@pytest.mark.usefixtures("faulty_environments")
async def test_no_episode_begins_when_the_steps_are_spent() -> None:
    practice, kept = await played(lambda n: reply(["sing", END]), Budget(60, 3, 1), 4, 2)
    assert (practice.steps, len(kept)) == (4, 2)


@pytest.mark.usefixtures("faulty_environments")
async def test_a_round_ends_when_no_more_may_begin() -> None:
    answers = iter([True, True, False])

    async def twice() -> bool:
        return next(answers)

    practice, kept = await played(lambda n: reply(["light", END]), Budget(60, 100, 1), may_begin=twice)
    assert (len(kept), practice.failures) == (2, [])


@pytest.mark.usefixtures("faulty_environments")
async def test_an_episode_that_cannot_be_played_is_left_out_and_none_at_all_is_an_error() -> None:
    practice, kept = await played(lambda n: None if n == 1 else reply(["light", END]), Budget(60, 100, 1))
    assert (len(kept), len(practice.failures)) == (3, 1)
    with pytest.raises(PolicyError, match="no"):
        await played(lambda n: None, Budget(60, 100, 2))


@pytest.mark.parametrize("seconds", [60.0, 0.01], ids=["cancelled", "out of time"])
@pytest.mark.usefixtures("faulty_environments")
async def test_a_round_that_ends_early_tells_nothing_of_what_was_under_way_and_leaves_no_process(
    seconds: float,
) -> None:
    begun, ends = asyncio.Event(), asyncio.Event()

    async def keep(practised: Practised) -> None:
        begun.set()
        await ends.wait()

    said = reply(["light", END])
    async with SandboxPool("faulty_dark") as pool, policy_saying(lambda n: said, []) as policy:
        practice = Round(Player(policy, "base", HARNESS, Sampling()), pool, Budget(seconds, 9, 2), at_once, keep)
        playing = asyncio.create_task(practice.play(tasks(1), 1))
        if seconds < 1:
            await playing
            assert practice.episodes == 0
            return
        await begun.wait()
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing
        assert pool.pids == ()
