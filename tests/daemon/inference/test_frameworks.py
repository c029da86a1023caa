"""Agents of three frameworks on one base URL, over each API that they know: their calls are read whole from the record.

The model has random weights, so every call of a tool is a forced one.
"""

import json
from collections.abc import AsyncIterator
from typing import Any, Literal

import agents
import httpx
import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, ConfigDict, SecretStr
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from ratchet_client.messages import Message, call, same_conversation, same_message
from streams.calls.chat import Chat
from tests.recorded import ALIAS, RecordedGateway

pytestmark = pytest.mark.slow

SYSTEM, ASK = "You tend a house.", "It is dark."
Room = Literal["hall", "Küche"]


class Plan(BaseModel):
    """A plan for the lamps."""

    model_config = ConfigDict(extra="forbid")
    room: Room
    on: bool


@pytest.fixture
async def client(house: RecordedGateway) -> AsyncIterator[openai.AsyncOpenAI]:
    house.calls()
    async with openai.AsyncOpenAI(base_url=f"{house.address}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def http_client() -> AsyncIterator[httpx.AsyncClient]:
    """Of the test's own: LangChain keeps one for all event loops."""
    async with httpx.AsyncClient(timeout=60) as client:
        yield client


def continues(later: Chat, earlier: Chat) -> bool:
    """Whether the later call's messages begin with the earlier's and its reply, as agents send them back."""
    known = (*earlier.messages, earlier.action)
    return same_conversation([message.spoken() for message in known], later.messages[: len(known)])


def called(message: Message) -> list[tuple[str, Any]]:
    return [(each.function.name, json.loads(each.function.arguments)) for each in message.calls if each.function]


# --- openai, asynchronous


@pytest.mark.parametrize("stream", [False, True])
async def test_openai_asynchronous_with_structured_output(
    house: RecordedGateway, client: openai.AsyncOpenAI, stream: bool
) -> None:
    asked: dict[str, Any] = {"model": ALIAS, "messages": [{"role": "user", "content": ASK}], "response_format": Plan}
    if stream:
        async with client.chat.completions.stream(**asked) as streamed:
            reply = await streamed.get_final_completion()
    else:
        reply = await client.chat.completions.parse(**asked)
    said = reply.choices[0].message
    assert isinstance(said.parsed, Plan)
    assert house.chat().action.text == said.content


# --- openai-agents


@agents.function_tool
def light(room: Room, lamps: int) -> str:
    """Lights lamps in a room."""
    return f"Lit in {room}."


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", [agents.OpenAIChatCompletionsModel, agents.OpenAIResponsesModel])
async def test_openai_agents(house: RecordedGateway, client: openai.AsyncOpenAI, kind: Any, stream: bool) -> None:
    agents.set_tracing_disabled(True)
    agent = agents.Agent(
        name="Keeper",
        instructions=SYSTEM,
        model=kind(model=ALIAS, openai_client=client),
        tools=[light],
        model_settings=agents.ModelSettings(tool_choice="light", max_tokens=200, temperature=1.0),
        tool_use_behavior="stop_on_first_tool",
    )
    told: Any = [{"role": "user", "content": ASK}]
    for _ in range(2):
        if stream:
            running = agents.Runner.run_streamed(agent, told)
            async for _event in running.stream_events():
                pass
            told, items = running.to_input_list(), running.new_items
        else:
            result = await agents.Runner.run(agent, told)
            told, items = result.to_input_list(), result.new_items
        made: Any = next(each.raw_item for each in items if each.type == "tool_call_item")
        told.append({"role": "user", "content": "And now?"})
    first, second = house.chats()
    assert [message.text for message in first.messages] == [SYSTEM, ASK]
    assert [tool["function"]["name"] for tool in first.tools or ()] == ["light"]  # type: ignore[index,call-overload]
    assert continues(second, first)
    result_of, asked = second.messages[-2:]
    assert (result_of.role, result_of.tool_call_id) == ("tool", first.action.calls[0].id)
    assert asked.text == "And now?"
    wanted = Message(role="assistant", tool_calls=(call("light", made.arguments, made.call_id),))
    assert same_message(second.action, wanted)


# --- pydantic-ai


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", [OpenAIChatModel, OpenAIResponsesModel, AnthropicModel])
async def test_pydantic_ai(house: RecordedGateway, kind: Any, stream: bool) -> None:
    house.calls()
    provider: Any = OpenAIProvider(base_url=f"{house.address}/v1", api_key="none")
    if kind is AnthropicModel:
        provider = AnthropicProvider(base_url=house.address, api_key="none")
    agent = PydanticAgent(kind(ALIAS, provider=provider), output_type=Plan, system_prompt=SYSTEM, retries=3)
    settings: Any = {"max_tokens": 400, "temperature": 1.0}
    if stream:
        async with agent.run_stream(ASK, model_settings=settings) as running:
            output = await running.get_output()
            history = running.all_messages()
    else:
        result = await agent.run(ASK, model_settings=settings)
        output, history = result.output, result.all_messages()
    first = house.chats()[0]
    assert [message.text for message in first.messages] == [SYSTEM, ASK]
    assert called(first.action)[0] == ("final_result", output.model_dump())

    more: Any = PydanticAgent(kind(ALIAS, provider=provider), system_prompt=SYSTEM)
    await more.run("And now?", message_history=history, model_settings={"max_tokens": 8})
    second = house.chat()
    assert continues(second, first)
    assert second.messages[-1].text == "And now?"


# --- langchain-openai


@tool
def darken(room: Room) -> str:
    """Puts the lamps of a room out."""
    return f"Dark in {room}."


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("responses", [False, True])
async def test_langchain(house: RecordedGateway, http_client: httpx.AsyncClient, responses: bool, stream: bool) -> None:
    house.calls()
    model = ChatOpenAI(
        model=ALIAS,
        base_url=f"{house.address}/v1",
        api_key=SecretStr("none"),
        max_completion_tokens=200,
        use_responses_api=responses,
        stream_usage=True,
        http_async_client=http_client,
    )
    chat: list[Any] = [SystemMessage(SYSTEM), HumanMessage(ASK)]
    bound = model.bind_tools([darken], tool_choice="darken", strict=True)
    if stream:
        reply: Any = None
        async for chunk in bound.astream(chat):
            reply = chunk if reply is None else reply + chunk
    else:
        reply = await bound.ainvoke(chat)
    assert isinstance(reply, AIMessage)
    [made] = reply.tool_calls
    chat += [reply, ToolMessage(darken.invoke(made["args"]), tool_call_id=made["id"])]
    await model.bind_tools([darken]).ainvoke(chat, max_tokens=8)
    planned = await model.with_structured_output(Plan, method="json_schema").ainvoke(chat)
    first, second, third = house.chats()
    assert [message.text for message in first.messages] == [SYSTEM, ASK]
    assert called(first.action) == [("darken", made["args"])]
    assert continues(second, first)
    assert second.messages[-1].text.startswith("Dark in ")
    assert isinstance(planned, Plan)
    assert json.loads(third.action.text) == planned.model_dump()
