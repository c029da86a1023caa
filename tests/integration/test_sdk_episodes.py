"""The async SDKs ask the gateway, and their calls go over a real broker and the roles to stored episodes."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState

from ratchet_client.messages import MESSAGES, Message, Messages, assistant, call, same_conversation, tool_result, user
from streams.kafka.publisher import Publisher
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics
from streams.store.client import StoreClient
from streams.store.queries.episodes import STEPS_OF_EPISODE
from streams.trust.rules import StoredStep, branch_request, cannot_be_learned_from
from tests.daemon.inference.conftest import run_server
from tests.integration.otlp_role import otlp_role_of
from tests.integration.recording import answers, recorder_of
from tests.recorded import ALIAS, recorded_gateway
from tests.waiting import eventually, until

SCHEMA = {
    "type": "object",
    "properties": {"room": {"enum": ["hall", "kitchen"]}, "lamps": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["room", "lamps"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "light", "description": "Lights lamps.", "parameters": SCHEMA}}
SYSTEM, ASK = Message(role="system", content="You tend a house."), user("It is dark.")
LAST = 20
# Each seed is a conversation: one of them has calls side by side.
SEEDS = range(3, 9)


async def tends_with_openai(address: str, seed: int) -> list[Message]:
    """The conversation of an agent that streams, makes calls side by side, and answers them in another order.

    It ends where the limit of tokens cut the calls.
    """
    said: list[Message] = [SYSTEM, ASK]
    headers = {"x-ratchet-episode": f"openai-{seed}", "x-ratchet-agent": "openai"}
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        for choice, most in (("required", 400), ("none", LAST)):
            asked: dict[str, Any] = {
                "model": ALIAS,
                "messages": json.loads(MESSAGES.dump_json(tuple(said), exclude_none=True)),
                "tools": [TOOL],
                "tool_choice": choice,
                "max_tokens": most,
                "seed": seed,
                "extra_headers": headers,
            }
            state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
            async for chunk in await client.chat.completions.create(**asked, stream=True):
                state.handle_chunk(chunk)
            done = state.current_completion_snapshot.choices[0]
            if choice == "required" and done.finish_reason == "length":
                break
            reply = done.message
            made = [call(each.function.name, each.function.arguments, each.id) for each in reply.tool_calls or ()]
            said.append(assistant(reply.content, *made))
            said += [tool_result(f"Lit {each.id}.", each.id) for each in reversed(made)]
    return said


async def tends_with_anthropic(address: str) -> list[Message]:
    """The conversation of an agent that streams, calls, and sends the results back as blocks."""
    said: list[Message] = [SYSTEM, ASK]
    messages: list[Any] = [{"role": "user", "content": ASK.text}]
    tool: Any = {"name": "light", "description": "Lights lamps.", "input_schema": SCHEMA}
    async with anthropic.AsyncAnthropic(base_url=address, api_key="none", max_retries=0) as client:
        once: Any = {"type": "any", "disable_parallel_tool_use": True}
        for choice, most in ((once, 200), ({"type": "none"}, LAST)):
            asked: dict[str, Any] = {
                "model": ALIAS,
                "system": SYSTEM.text,
                "messages": messages,
                "tools": [tool],
                "tool_choice": choice,
                "max_tokens": most,
                "extra_body": {"temperature": 0},
                "extra_headers": {"x-ratchet-episode": "anthropic", "x-ratchet-agent": "anthropic"},
            }
            async with client.messages.stream(**asked) as stream:
                reply = await stream.get_final_message()
            used = [block for block in reply.content if block.type == "tool_use"]
            text = "".join(block.text for block in reply.content if block.type == "text")
            made = [call(each.name, json.dumps(each.input), each.id) for each in used]
            said.append(assistant(text or None, *made))
            said += [tool_result("Lit.", each.id) for each in used]
            results = [{"type": "tool_result", "tool_use_id": each.id, "content": "Lit."} for each in used]
            messages.append({"role": "assistant", "content": reply.content})
            messages.append({"role": "user", "content": results})
    return said


@pytest.mark.slow
async def test_streamed_parallel_calls_of_async_sdks_become_stored_episodes(
    kafka: KafkaSettings, tiny_base: Path, tmp_path: Path
) -> None:
    publisher = Publisher(kafka, 10, 900_000, "gateway")
    await asyncio.to_thread(create_topics, kafka)
    with (
        otlp_role_of(kafka, tmp_path) as roles,
        recorder_of(kafka, tmp_path) as recorder,
        run_server(tiny_base, max_length=2048) as engine,
        recorded_gateway(engine, publisher, kafka.calls_topic) as gateway,
    ):
        chats = await asyncio.gather(*(tends_with_openai(gateway.address, seed) for seed in SEEDS))
        said = {f"openai-{seed}": chat for seed, chat in zip(SEEDS, chats, strict=True) if len(chat) > 2}
        said["anthropic"] = await tends_with_anthropic(gateway.address)
        # The log has all of it before the assembler looks for conversations that have ended.
        until(lambda: not gateway.waiting, "the calls are published")
        roles.start()
        recorder.start()
        async with StoreClient(recorder.url) as store:
            await eventually(lambda: answers(store))

            async def steps_of(name: str) -> list[dict[str, Any]]:
                return list((await store.query(STEPS_OF_EPISODE, {"episode_id": name})).to_pylist())

            async def stored() -> bool:
                return all([len(await steps_of(name)) >= 2 for name in said])

            await eventually(stored, "both calls of each conversation are stored")
            found = {name: await steps_of(name) for name in said}
        assert roles.end(signal.SIGTERM) == 0
    publisher.close()
    assert max(len(chat[2].calls) for chat in said.values()) > 1
    for name, chat in said.items():
        steps = [StoredStep.of(row) for row in found[name]]
        assert [step.step for step in steps] == [0, 1]
        whole: Messages = (*steps[0].messages, steps[0].action, *steps[0].observation, steps[1].action)
        assert same_conversation(whole, chat), name
        assert [step.tools for step in steps] == [(TOOL,)] * 2
        assert {row["agent"] for row in found[name]} == {name.partition("-")[0]}
        request = branch_request(name, steps, "trusted")
        assert request is not None
        assert cannot_be_learned_from(request) is None
