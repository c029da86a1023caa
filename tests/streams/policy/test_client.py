"""The client of the inference server against servers that answer as vLLM and others do. Their answers are the input."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI

from ratchet_client.messages import Message, Tools, assistant, call, tool_result, user
from streams.errors import PolicyError
from streams.policy.client import PolicyClient, Sampling
from streams.policy.served import ServedPolicy
from tests.served import served

TOOLS: Tools = ({"type": "function", "function": {"name": "ls", "parameters": {"type": "object", "properties": {}}}},)
LS = {"id": "call_7", "type": "function", "function": {"name": "ls", "arguments": "{}"}}


@asynccontextmanager
async def server(*choices: dict[str, Any], asked: list[dict[str, Any]] | None = None) -> AsyncIterator[PolicyClient]:
    """A server that answers every chat with the first of `choices`, as many as are asked for."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    def chat(body: dict[str, Any]) -> dict[str, Any]:
        if asked is not None:
            asked.append(body)
        return {"model": "ratchet-1-abc", "choices": list(choices[: body["n"]])}

    with served(app) as address:
        async with PolicyClient(address) as client:
            yield client


def choice(finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant"} | message, "finish_reason": finish_reason}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"content": "go"}, assistant("go")),
        (
            {"content": None, "tool_calls": [LS], "refusal": None, "audio": None},
            assistant(None, call("ls", "{}", "call_7")),
        ),
        ({"content": "", "tool_calls": [LS]}, assistant(None, call("ls", "{}", "call_7"))),
        ({"content": "Look.", "tool_calls": [LS, LS]}, assistant("Look.", *[call("ls", "{}", "call_7")] * 2)),
        ({"content": "", "tool_calls": [], "function_call": None}, assistant("")),
        ({"content": "go", "reasoning_content": "Hm."}, assistant("go", reasoning="Hm.")),
        ({"content": "go", "reasoning": "Hm.", "reasoning_content": None}, assistant("go", reasoning="Hm.")),
        ({"content": "go", "reasoning": ""}, assistant("go")),
    ],
)
async def test_replies_of_every_server_become_one_kind_of_message(message: dict[str, Any], expected: Message) -> None:
    async with server(choice(**message)) as client:
        (reply,) = await client.chat("m", (user("?"),), Sampling())
    assert reply.message == expected


async def test_a_reply_that_is_no_message_is_a_clear_error() -> None:
    wrong = [{"id": "1", "function": {"name": 1, "arguments": "{}"}}]
    async with server(choice(content=None, tool_calls=wrong)) as client:
        with pytest.raises(PolicyError, match="tool-call parser"):
            await client.chat("m", (user("?"),), Sampling())


async def test_requests_hold_no_nulls_and_tools_only_where_there_are_some() -> None:
    asked: list[dict[str, Any]] = []
    chat = (user("?"), assistant(None, call("ls", "{}", "call_7")), tool_result("[]", "call_7"), assistant(None))
    async with server(choice(content="go"), asked=asked) as client:
        await client.chat("m", chat, Sampling(max_tokens=5), tools=TOOLS)
        await client.chat("m", chat[:1], Sampling(stop=("!",)))
    first, second = asked
    assert first["messages"] == [
        {"role": "user", "content": "?"},
        {"role": "assistant", "tool_calls": [LS]},
        {"role": "tool", "content": "[]", "tool_call_id": "call_7"},
        {"role": "assistant", "content": ""},
    ]
    assert first["tools"] == list(TOOLS)
    assert (first["max_tokens"], "stop" in first) == (5, False)
    assert "tools" not in second
    assert ("max_tokens" in second, second["stop"]) == (False, ["!"])


async def test_limits_of_a_harness_hold_where_none_are_set() -> None:
    assert Sampling().within(16, ("\n",)) == Sampling(max_tokens=16, stop=("\n",))
    assert Sampling(max_tokens=9, seed=3).within(16, ()) == Sampling(max_tokens=9, stop=(), seed=3)
    assert Sampling(stop=()).within(16, ("\n",)) == Sampling(max_tokens=16, stop=())


async def test_a_reply_that_was_cut_where_tools_are_offered_is_no_sample() -> None:
    drawn = (
        choice("length", content='<tool_call>\n{"name": "ls", "argu'),
        choice("tool_calls", content=None, tool_calls=[LS]),
        choice("length", content=None, tool_calls=[LS]),
        choice(content="Done."),
    )
    async with server(*drawn) as client:
        policy = ServedPolicy(client, "assistant", patience_s=1)
        samples = await policy.sample((user("?"),), TOOLS, (Sampling(temperature=1.0),), 4)
        assert samples.replies == (assistant(None, call("ls", "{}", "call_7")), assistant("Done."))
        assert samples.model == "ratchet-1-abc"
        # In a text game its first line is whole.
        plain = await policy.sample((user("?"),), (), (Sampling(temperature=1.0),), 1)
    assert plain.replies == (assistant('<tool_call>\n{"name": "ls", "argu'),)


async def test_samples_are_split_among_the_samplings() -> None:
    asked: list[dict[str, Any]] = []
    async with server(*[choice(content="go")] * 9, asked=asked) as client:
        samplings = (Sampling(temperature=0.8, max_tokens=256), Sampling(temperature=1.2, max_tokens=256))
        samples = await ServedPolicy(client, "assistant", 1).sample((user("?"),), TOOLS, samplings, 5)
    assert len(samples.replies) == 5
    assert sorted((body["temperature"], body["n"], body["max_tokens"]) for body in asked) == [
        (0.8, 3, 256),
        (1.2, 2, 256),
    ]
