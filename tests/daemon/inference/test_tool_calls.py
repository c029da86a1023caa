"""Tool calls through the real OpenAI SDK, of a model with random weights: what has to be a call is one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage
from pydantic import BaseModel, ConfigDict

from learners.chat import ChatTokenizer
from ratchet_client.messages import MESSAGE

MAX_LENGTH = 1024
PLACE = {"enum": ["Oslo", "Köln", 'a "b"/\\c']}
HOURS = {"type": "integer", "minimum": 0, "maximum": 20}


def function(name: str, strict: bool | None = None, **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    described = {"name": name, "description": f"To {name}.", "parameters": schema}
    return {"type": "function", "function": described | ({} if strict is None else {"strict": strict})}


TOOLS = [function("find_route", to=PLACE), function("find_route_by_night", to=PLACE, hours=HOURS)]
SCHEMAS = {tool["function"]["name"]: tool["function"]["parameters"]["properties"] for tool in TOOLS}
CHAT: list[dict[str, Any]] = [
    {"role": "developer", "content": "You help travellers."},
    {"role": "user", "content": [{"type": "text", "text": "To Oslo, please."}]},
]


@pytest.fixture
def client(server: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{server}/v1", api_key="none", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def create(client: openai.OpenAI, **fields: Any) -> ChatCompletion:
    asked: dict[str, Any] = {"model": "base", "messages": CHAT, "tools": TOOLS, "max_tokens": 200, "seed": 1}
    reply: ChatCompletion = client.chat.completions.create(**asked | fields)
    return reply


def called(message: ChatCompletionMessage) -> list[tuple[str, dict[str, Any]]]:
    """The names and arguments of the calls, each checked against its schema."""
    found = []
    for call in message.tool_calls or ():
        assert call.type == "function"
        arguments = json.loads(call.function.arguments)
        properties = SCHEMAS[call.function.name]
        assert arguments.keys() == properties.keys()
        assert arguments["to"] in PLACE["enum"]
        assert arguments.get("hours", 0) in range(21)
        found.append((call.function.name, arguments))
    return found


def several(client: openai.OpenAI, **fields: Any) -> ChatCompletionMessage:
    """A reply with at least two calls."""
    for seed in range(0, 96, 12):
        for choice in create(client, tool_choice="required", seed=seed, n=12, **fields).choices:
            if len(choice.message.tool_calls or ()) > 1 and choice.finish_reason == "tool_calls":
                return choice.message
    raise AssertionError("no reply had two calls")


@pytest.mark.parametrize("seed", range(4))
def test_a_reply_that_has_to_call_calls(client: openai.OpenAI, seed: int) -> None:
    (choice,) = create(client, tool_choice="required", parallel_tool_calls=False, seed=seed).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert len(called(choice.message)) == 1


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_function_that_is_named_is_called_once(client: openai.OpenAI, name: str) -> None:
    choices = create(client, tool_choice={"type": "function", "function": {"name": name}}, n=4).choices
    assert [[each for each, _ in called(choice.message)] for choice in choices] == [[name]] * 4
    ids = [call.id for choice in choices for call in choice.message.tool_calls or ()]
    assert len(set(ids)) == 4
    assert all(ids)


@pytest.mark.parametrize("described", [{}, {"parameters": None}])
def test_a_function_without_parameters_is_called_with_none(client: openai.OpenAI, described: dict[str, Any]) -> None:
    tools = [{"type": "function", "function": {"name": "go", **described}}]
    for choice in create(client, tools=tools, tool_choice="required", parallel_tool_calls=False, n=4).choices:
        assert [call.function.arguments for call in choice.message.tool_calls or ()] == ["{}"]  # type: ignore[union-attr]


def test_a_model_that_does_not_think_tells_no_reasoning(client: openai.OpenAI, http: httpx.Client) -> None:
    body = {"model": "base", "messages": CHAT, "tools": TOOLS, "max_tokens": 4}
    (choice,) = http.post("/v1/chat/completions", json=body).json()["choices"]
    assert "reasoning_content" not in choice["message"]
    assert "reasoning_content" not in http.post("/v1/chat/completions", json=body | {"stream": True}).text


def test_of_allowed_tools_only_those_are_called(client: openai.OpenAI) -> None:
    named = {"type": "function", "function": {"name": "find_route"}}
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}
    for each in create(client, tool_choice=choice, n=4, parallel_tool_calls=False).choices:
        assert [name for name, _ in called(each.message)] == ["find_route"]


@pytest.mark.slow
def test_an_agents_loop_of_parallel_calls_sends_back_what_it_got(client: openai.OpenAI, http: httpx.Client) -> None:
    messages: list[Any] = list(CHAT)
    for _ in range(2):
        message = several(client, messages=messages, max_tokens=100)
        calls = message.tool_calls or []
        messages.append(message.model_dump())
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "At noon."} for call in calls]
    reply = create(client, messages=messages, tool_choice="none", max_tokens=8)
    assert reply.choices[0].message.tool_calls is None
    assert reply.choices[0].message.content is not None
    # As many tokens as the trainer has of the same conversation.
    bare = [MESSAGE.validate_python({key: value for key, value in each.items() if value}) for each in messages]
    root = next(model["root"] for model in http.get("/v1/models").json()["data"] if model["id"] == "base")
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == len(ChatTokenizer(Path(root)).prompt(bare, tuple(TOOLS)))


def test_a_stream_is_put_together_by_the_sdk_to_the_same_calls(client: openai.OpenAI) -> None:
    asked: Any = {"model": "base", "messages": CHAT, "tools": TOOLS, "seed": 3, "tool_choice": "required"}
    whole = create(client, seed=3, tool_choice="required", max_tokens=150).choices[0]
    with client.chat.completions.stream(**asked, max_tokens=150, stream_options={"include_usage": True}) as stream:
        events = list(stream)
        final = stream.get_final_completion().choices[0]
    assert final.finish_reason == whole.finish_reason
    assert final.message.content == whole.message.content
    streamed = [(call.function.name, call.function.arguments) for call in final.message.tool_calls or ()]
    assert streamed == [(call.function.name, call.function.arguments) for call in whole.message.tool_calls or ()]  # type: ignore[union-attr]
    assert sum(event.type == "tool_calls.function.arguments.done" for event in events) == len(streamed)


def test_every_delta_is_complete_by_openais_specification(client: openai.OpenAI, http: httpx.Client) -> None:
    body = {"model": "base", "messages": CHAT, "tools": TOOLS, "stream": True, "tool_choice": "required", "seed": 2}
    told = http.post("/v1/chat/completions", json=body | {"max_tokens": 150, "logprobs": True}).text
    lines = [line.removeprefix("data: ") for line in told.splitlines() if line]
    chunks = [ChatCompletionChunk.model_validate_json(line, strict=True) for line in lines[:-1]]
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    calls = [call for delta in deltas for call in delta.tool_calls or ()]
    assert [call.index for call in calls] == list(range(len(calls)))
    assert all(call.id and call.type == "function" and call.function and call.function.name for call in calls)
    assert all(delta.content is None for delta in deltas)
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == [
        "tool_calls"
    ]
    logprobs = [choice.logprobs for chunk in chunks for choice in chunk.choices if choice.logprobs]
    whole = create(client, tool_choice="required", seed=2, max_tokens=150, logprobs=True).choices[0].logprobs
    assert whole is not None
    assert sum(len(each.content or ()) for each in logprobs) == len(whole.content or ())


def test_without_calls_a_reply_is_its_text(client: openai.OpenAI) -> None:
    demands: tuple[dict[str, Any], ...] = (
        {"tool_choice": "none"},
        {"tool_choice": "auto"},
        {"parallel_tool_calls": False},
    )
    for fields in (*demands, {}):
        (choice,) = create(client, max_tokens=12, **fields).choices
        assert (choice.finish_reason, choice.message.tool_calls) == ("length", None)
        asked: Any = {"model": "base", "messages": CHAT, "tools": TOOLS, "max_tokens": 12, "seed": 1, **fields}
        with client.chat.completions.stream(**asked) as stream:
            pieces = [event.delta for event in stream if event.type == "content.delta"]
        assert "".join(pieces) == choice.message.content
        assert len(pieces) > 3


def test_a_reply_that_is_cut_within_a_call_ends_for_its_length(client: openai.OpenAI) -> None:
    asked: Any = {"model": "base", "messages": CHAT, "tools": TOOLS, "seed": 1, "tool_choice": "required", "n": 4}
    complete = 0
    for most in (1, 2, 6, 30):
        choices = create(client, tool_choice="required", n=4, max_tokens=most).choices
        with (
            pytest.raises(openai.LengthFinishReasonError) as cut,
            client.chat.completions.stream(**asked, max_tokens=most) as stream,
        ):
            stream.get_final_completion()
        streamed = cut.value.completion.choices
        for whole, told in zip(choices, sorted(streamed, key=lambda each: each.index), strict=True):
            calls = called(whole.message)
            assert called(told.message) == calls
            assert whole.message.content is told.message.content is None
            assert whole.finish_reason == told.finish_reason
            assert most > 6 or (whole.finish_reason, calls) == ("length", [])
            complete += bool(calls) and whole.finish_reason == "length"
    assert complete


def test_calls_are_told_beside_a_format_of_the_answer(client: openai.OpenAI) -> None:
    """As agents with an output type ask: a call, or the answer in its format."""
    schema = function("end", ok={"type": "boolean"})["function"]["parameters"]
    fields: Any = {
        "response_format": {"type": "json_schema", "json_schema": {"name": "end", "strict": True, "schema": schema}},
        "parallel_tool_calls": False,
    }
    kinds = set()
    for seed in range(12):
        (choice,) = create(client, seed=seed, **fields).choices
        if choice.message.tool_calls:
            called(choice.message)
        else:
            assert json.loads(choice.message.content or "").keys() == {"ok"}
        kinds.add(choice.finish_reason)
    assert kinds == {"stop", "tool_calls"}


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "shell"}}]}, "tools", "shell"),
        ({"tools": [{"type": "web_search"}, *TOOLS]}, "tools", "web_search"),
        ({"tools": [{"type": "function", "function": {"parameters": {}}}]}, "tools", "names no function"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]}, "tools", "no JSON schema"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}]}, "tools", "f"),
        ({"tool_choice": {"type": "function", "function": {"name": "nothing"}}}, "tool_choice", "nothing"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice", "tools"),
        ({"tool_choice": {"type": "custom", "custom": {"name": "f"}}}, "tool_choice", "not served"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "tool_choice", "not served"),
    ],
)
def test_what_cannot_be_called_is_refused_by_its_name(
    client: openai.OpenAI, fields: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        create(client, **fields)
    assert refused.value.param == param
    assert words in refused.value.message


class Route(BaseModel):
    """A type that `parse` reads replies into."""

    model_config = ConfigDict(extra="forbid")
    night: bool
    via: list[bool]


async def test_the_async_client_parses_a_reply_into_a_type(server: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0) as client:
        reply = await client.chat.completions.parse(
            model="base",
            messages=CHAT,  # type: ignore[arg-type]
            response_format=Route,
            max_tokens=300,
            seed=2,
        )
        assert isinstance(reply.choices[0].message.parsed, Route)
        tool = openai.pydantic_function_tool(Route)
        called = await client.chat.completions.parse(
            model="base",
            messages=CHAT,  # type: ignore[arg-type]
            tools=[tool],
            tool_choice="required",
            parallel_tool_calls=False,
            max_tokens=300,
            seed=2,
        )
        calls = called.choices[0].message.tool_calls or []
        assert [isinstance(call.function.parsed_arguments, Route) for call in calls] == [True]
