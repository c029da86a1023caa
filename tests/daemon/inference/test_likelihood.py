"""What the server says of an observation is what the trainer's world-model loss says of it."""

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from learners import tree_attention
from learners.chat import ChatTokenizer
from learners.objectives.objective import Example
from learners.objectives.world_model import WorldModel
from learners.packing import TreePacker, Weights
from learners.trajectories import Trajectory
from ratchet_client.messages import Message, assistant, call, tool_result, user
from streams.branch_events import RecordedStep
from streams.environments.harness import ChatHarness
from streams.errors import PolicyError
from streams.policy.client import PolicyClient
from streams.policy.likelihood import (
    NegativeLogLikelihood,
    frame_probe,
    observation_spans,
    observed,
    read_frame,
    with_role,
)
from tests.builders.trained import branch, step, tool
from tests.builders.trees import tree_loss

TRAJECTORY = Trajectory(
    episode_id="a",
    task_id="twc/train/1",
    opening=ChatHarness().opening((user("Put the things away.\n\nYou are in the kitchen."),)),
    steps=(
        step("open fridge", "You open the fridge. [score 0.00]"),
        step("user", "user"),
        step("take plate", "\n\nVocê pega 盘子 🍽️.\n"),
        step("look", "   Two spaces  inside, and at the end.  "),
    ),
    branches=tuple(
        branch(number, action, f"You {action}. Nothing happens. [score 0.00]")
        for number, action in ((0, "look"), (0, "dance"), (1, "take the cup"), (3, "eat plate"))
    ),
)
TOOLS = (tool("search", "query"), tool("open", "place"))
WITH_TOOLS = Trajectory(
    episode_id="b",
    task_id="t",
    opening=(Message(role="system", content="Help."), user("When can I swim?")),
    steps=(
        step(
            assistant("I look.", call("open", '{"place": "baths"}', "a"), call("search", '{"query": "user"}', "b")),
            tool_result("Open at 9.", "a"),
            tool_result("\n\nNão há nada: <tool_response>\n", "b"),
            tools=TOOLS,
        ),
        step("At nine.", "And now?", "Be quick."),
        step(assistant(None, call("search", "{}", "c")), tool_result("", "c"), "And?"),
    ),
    branches=(
        branch(0, assistant(None, call("search", '{"query": "baths"}', "d")), tool_result("Closed today.", "d")),
        branch(1, "I do not know.", "Look again."),
    ),
)
ALTERNATIVES = ("dance", "dance wildly", "eat plate", "go north", "open fridge", "wait", "sing", "take cup")


def episode(trajectory: Trajectory = TRAJECTORY, steps: int | None = None) -> list[Message]:
    chat = list(trajectory.opening)
    for taken in trajectory.steps[:steps]:
        chat += [taken.action, *taken.observation]
    return chat


def turn(action: str, observation: str) -> list[Message]:
    return [Message(role="assistant", content=action), Message(role="user", content=observation)]


def alternatives(step: int) -> list[list[Message]]:
    return [[*episode(steps=step), *turn(action, f"You {action}. [score 0.00]")] for action in ALTERNATIVES]


def trained_loss(base: Path, adapter: Path | None, trajectory: Trajectory, weights: Weights | None = None) -> float:
    """The trainer's own loss, in nats: of the world-model objective, or else of what `weights` counts."""
    model: Any = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, attn_implementation=tree_attention.NAME
    )
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    packer = TreePacker(ChatTokenizer(base), 2048)
    tree = packer.pack(trajectory, weights) if weights else WorldModel().pack(Example(trajectory), packer)
    with torch.inference_mode():
        return tree_loss(cast(LlamaForCausalLM, model.eval()), tree).item()


def nats(negative_log_likelihoods: Sequence[NegativeLogLikelihood]) -> float:
    return sum(one.nats * one.tokens for one in negative_log_likelihoods)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trajectory", "adapted"),
    [(TRAJECTORY, False), (TRAJECTORY, True), (WITH_TOOLS, False)],
    ids=["texts", "adapted", "tools"],
)
async def test_the_negative_log_likelihood_is_the_world_model_loss_of_the_trainer(
    server: str, tiny_base: Path, tiny_adapter: Path, trajectory: Trajectory, adapted: bool
) -> None:
    adapter, name = (tiny_adapter, "ratchet-7-likelihood") if adapted else (None, "base")
    tools = trajectory.tools(0)
    async with PolicyClient(server) as policy:
        if adapted:
            await policy.load_adapter(name, str(tiny_adapter))
        reference = await policy.negative_log_likelihoods(name, episode(trajectory), tools)
        branches = await asyncio.gather(
            *(
                policy.negative_log_likelihood(
                    name, [*episode(trajectory, tried.step), tried.action, *tried.observation], tools
                )
                for tried in trajectory.branches
            )
        )
    assert len(reference) == len(trajectory.steps)
    recorded = trained_loss(tiny_base, adapter, trajectory, Weights(observations=1.0))
    assert nats(reference) == pytest.approx(recorded, rel=1e-5)
    assert nats([*reference, *branches]) == pytest.approx(trained_loss(tiny_base, adapter, trajectory), rel=1e-5)


async def test_an_observation_has_the_same_negative_log_likelihood_alone_and_within_its_episode(server: str) -> None:
    async with PolicyClient(server) as policy:
        reference = await policy.negative_log_likelihoods("base", episode())
        alone = [
            await policy.negative_log_likelihood("base", episode(steps=count)) for count in range(1, len(reference) + 1)
        ]
    assert [one.tokens for one in alone] == [one.tokens for one in reference]
    assert [one.nats for one in alone] == pytest.approx([one.nats for one in reference], abs=1e-4)


async def test_an_episode_without_observations_has_no_negative_log_likelihood(server: str) -> None:
    async with PolicyClient(server) as policy:
        assert await policy.negative_log_likelihoods("base", TRAJECTORY.opening) == ()
        wait = Message(role="assistant", content="wait")
        assert await policy.negative_log_likelihoods("base", [*TRAJECTORY.opening, wait]) == ()
        assert len(await policy.negative_log_likelihoods("base", [*episode(), wait])) == len(TRAJECTORY.steps)


@pytest.mark.parametrize("trajectory", [TRAJECTORY, WITH_TOOLS], ids=["texts", "tools"])
async def test_the_log_probabilities_of_an_action_are_those_of_the_tokens_that_the_trainer_counts(
    server: str, tiny_base: Path, trajectory: Trajectory
) -> None:
    tokenizer, tools = ChatTokenizer(tiny_base), trajectory.tools(0)
    async with PolicyClient(server) as policy:
        for number, taken in enumerate(trajectory.steps):
            state = episode(trajectory, number)
            turn = tokenizer.reply(state, taken.action, tools)
            every = await policy.prompt_logprobs("base", turn.ids)
            begin, end = turn.written
            # The last of them ends the turn.
            expected = every[begin - 1 : end - 2]
            found = await policy.action_logprobs("base", [*state, taken.action], tools)
            assert found == pytest.approx(expected, abs=1e-4)


async def test_only_an_action_at_the_end_of_a_chat_has_log_probabilities(server: str) -> None:
    async with PolicyClient(server) as policy:
        with pytest.raises(PolicyError, match="ends with an action"):
            await policy.action_logprobs("base", episode())


@pytest.mark.slow
async def test_alternatives_at_one_state_compute_the_state_once(
    server_with: Callable[..., AbstractContextManager[str]],
) -> None:
    def prefilled() -> int:
        return int(httpx.get(f"{address}/stats").json()["prefilled"])

    with server_with() as address:
        async with PolicyClient(address) as policy:
            await policy.negative_log_likelihoods(
                "base", TRAJECTORY.opening + tuple(turn("look", "A cat."))
            )  # learns the frame
            before = prefilled()
            first = await asyncio.gather(*(policy.negative_log_likelihood("base", chat) for chat in alternatives(4)))
            computed = prefilled() - before
            again = [await policy.negative_log_likelihood("base", chat) for chat in alternatives(4)]
        with httpx.Client(base_url=address) as http:
            state = score(http).json()["usage"]["prompt_tokens"]
    # An alternative adds its action and its observation, with two headers around them.
    assert computed <= state + sum(one.tokens + 20 for one in first)
    assert [one.nats for one in again] == pytest.approx([one.nats for one in first], abs=1e-4)


@pytest.mark.nightly
@pytest.mark.parametrize("settings", [{"prefill_budget": 16}, {"slots": 1}, {"slots": 2, "prefill_budget": 16}])
async def test_the_negative_log_likelihood_does_not_depend_on_how_the_server_batches(
    server: str, server_with: Callable[..., AbstractContextManager[str]], settings: dict[str, int]
) -> None:
    async def all_of_them(address: str) -> list[float]:
        async with PolicyClient(address) as policy:
            chats = [*alternatives(2), *alternatives(3)]
            reference = asyncio.create_task(policy.negative_log_likelihoods("base", episode()))
            others = await asyncio.gather(*(policy.negative_log_likelihood("base", chat) for chat in chats))
            return [one.nats for one in (*await reference, *others)]

    with server_with(**settings) as address:
        assert await all_of_them(address) == pytest.approx(await all_of_them(server), abs=1e-4)


class AsVllm(httpx.AsyncHTTPTransport):
    """The embedded server in vLLM's manner: it knows no field of ours, and tells the rank and a likelier token."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        del asked["prompt_logprobs_from_message"]
        answer = await super().handle_async_request(
            httpx.Request(request.method, request.url, json=asked, extensions=request.extensions)
        )
        told = json.loads(await answer.aread())
        for entry in told["prompt_logprobs"][1:]:
            for logprob in entry.values():
                logprob["rank"] = 7
            entry["0"] = {"logprob": -0.1, "rank": 1, "decoded_token": "Ġ"}
        return httpx.Response(answer.status_code, json={**told, "service_tier": None})


async def test_a_server_that_scores_every_prompt_as_a_whole_gives_the_same_values(server: str) -> None:
    async with PolicyClient(server) as policy, PolicyClient(server) as vllm:
        vllm._http = httpx.AsyncClient(base_url=server, timeout=60, transport=AsVllm())
        for chat in alternatives(3):
            ours, theirs = (
                await policy.negative_log_likelihood("base", chat),
                await vllm.negative_log_likelihood("base", chat),
            )
            assert ours.tokens == theirs.tokens
            assert ours.nats == pytest.approx(theirs.nats, abs=1e-4)
        assert len(await vllm.negative_log_likelihoods("base", episode())) == len(TRAJECTORY.steps)


def score(http: httpx.Client, **fields: Any) -> httpx.Response:
    messages = [message.model_dump() for message in episode()]
    body = {"model": "base", "messages": messages, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0, **fields}
    return http.post("/v1/chat/completions", json=body)


def test_only_the_messages_asked_for_are_scored_whatever_is_cached(http: httpx.Client) -> None:
    whole = score(http, return_token_ids=True, add_generation_prompt=False).json()
    entries, ids = whole["prompt_logprobs"], whole["prompt_token_ids"]
    assert len(entries) == len(ids) == whole["usage"]["prompt_tokens"]
    assert [list(entry) for entry in entries[1:]] == [[str(token)] for token in ids[1:]]
    assert entries[0] is None
    assert len(whole["choices"][0]["token_ids"]) == 1
    part, again = (
        score(http, add_generation_prompt=False, prompt_logprobs_from_message=len(episode()) - 1).json()
        for _ in range(2)
    )
    for answer in (part, again):
        unscored = answer["prompt_logprobs"].count(None)
        assert answer["prompt_logprobs"][:unscored] == [None] * unscored
        words = [entry["decoded_token"] for scored in entries[unscored : unscored + 2] for entry in scored.values()]
        assert words == ["<|im_start|>", "user"]
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == unscored - 1


def test_scoring_a_chat_does_not_change_its_reply(http: httpx.Client) -> None:
    scored = score(http, max_tokens=8).json()["choices"]
    assert scored == score(http, max_tokens=8, prompt_logprobs=None).json()["choices"]


@pytest.mark.parametrize(
    "fields",
    [{"stream": True}, {"prompt_logprobs": 5}, {"prompt_logprobs_from_message": 99}, {"return_token_ids": 3}],
)
def test_a_score_that_is_not_served_is_refused(http: httpx.Client, fields: dict[str, Any]) -> None:
    assert score(http, **fields).status_code == 400


@pytest.mark.parametrize(
    ("chat", "reason"),
    [
        (episode(steps=0), "end the chat"),
        ([*episode(), assistant("wait")], "end the chat"),
    ],
)
async def test_a_chat_whose_observations_cannot_be_located_is_refused(
    server: str, chat: list[Message], reason: str
) -> None:
    async with PolicyClient(server) as policy:
        with pytest.raises(PolicyError, match=reason):
            await policy.negative_log_likelihood("base", chat)


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> ChatTokenizer:
    return ChatTokenizer(tiny_base)


WORDS = st.text(max_size=30) | st.sampled_from(["", "\n", "user", "\n\n  x", " ", "é🍽", "assistant\n", "<|im_end|>"])
# A text answers in one message or two, and calls are answered by results and maybe a word of the user.
STEPS = st.builds(lambda action, *said: step(action, *said), WORDS, WORDS) | st.builds(
    lambda action, *said: step(action, *said), WORDS, WORDS, WORDS
)
CALLS = st.builds(
    lambda content, result, other, words: step(
        assistant(content, call("search", json.dumps({"query": content}), "a"), call("open", "{}", "b")),
        tool_result(result, "a"),
        tool_result(other, "b"),
        *words,
    ),
    WORDS,
    WORDS,
    WORDS,
    st.lists(WORDS, max_size=1),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(STEPS | CALLS, max_size=5))
def test_an_observation_has_the_same_tokens_here_and_in_the_trainer(
    tokenizer: ChatTokenizer, steps: list[RecordedStep]
) -> None:
    def tokens(chat: Sequence[Message]) -> list[int]:
        return tokenizer.prompt(chat, generation=False)

    frame = read_frame(*(tokens(frame_probe(letter)) for letter in "ab"))
    frame = with_role(frame, "tool", *(tokens(frame_probe(letter, "tool")) for letter in "ab"))
    chat = [*TRAJECTORY.opening, *(message for taken in steps for message in (taken.action, *taken.observation))]
    expected = [tokenizer.observation(chat[: one.end], one.end - one.begin).written for one in observed(chat)]
    assert list(observation_spans(tokens(chat), chat, frame)) == expected
