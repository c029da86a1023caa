"""Replies of the other APIs, whole and as events, say the same of a turn with reasoning, text and several calls."""

import json
from collections.abc import AsyncIterator
from typing import Any, cast

import anthropic.types
import numpy as np
import openai.types.responses
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from daemon.inference.answers import Answer
from daemon.inference.faces.anthropic_replies import message, message_events
from daemon.inference.faces.known_responses import KnownResponses
from daemon.inference.faces.responses_replies import response, response_events
from daemon.inference.faces.responses_requests import ResponsesRequest
from daemon.inference.requests import ChatRequest
from daemon.inference.schemas import (
    CallDelta,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatDelta,
    ChatReply,
    FunctionDelta,
    PromptDetails,
    ReplyMessage,
    Usage,
)
from daemon.inference.sequence import Sequence
from ratchet_client.messages import assistant, call, user
from streams.calls.faces import read_call
from streams.calls.records import Face
from tests.builders.calls import captured

CALLS = (call("look", '{"at": "lamp"}', "c1"), call("take", "{}", "c2"))
SAID = assistant("I do.", *CALLS, reasoning="Hm, well.")
USAGE = Usage(
    prompt_tokens=3, completion_tokens=9, total_tokens=12, prompt_tokens_details=PromptDetails(cached_tokens=1)
)
NAMES: dict[str, Any] = {"id": "x", "created": 1, "model": "base"}
REPLY = ChatReply(
    **NAMES,
    choices=[
        ChatChoice(
            index=0,
            message=ReplyMessage(content="I do.", reasoning_content="Hm, well.", tool_calls=CALLS),
            logprobs=None,
            finish_reason="tool_calls",
            token_ids=None,
        )
    ],
    usage=USAGE,
    prompt_logprobs=None,
    prompt_token_ids=None,
)
ANTHROPIC = {"model": "base", "max_tokens": 9, "messages": [{"role": "user", "content": "Go."}]}
RESPONSES = {"model": "base", "input": "Go."}
REQUEST = ResponsesRequest.model_validate(RESPONSES)
CHAT = ChatRequest(model="base", messages=(user("Go."),))


def answer() -> Answer:
    made = Answer()
    made.sequences = [cast(Sequence, type("Prompted", (), {"prompt": np.arange(3)})())]
    return made


async def chunks(*deltas: ChatDelta, finish: str = "tool_calls") -> AsyncIterator[ChatChunk]:
    for delta in (ChatDelta(role="assistant"), *deltas):
        yield ChatChunk(**NAMES, choices=[ChatChunkChoice(index=0, delta=delta, logprobs=None, finish_reason=None)])
    end = ChatChunkChoice(index=0, delta=ChatDelta(), logprobs=None, finish_reason=finish)
    yield ChatChunk(**NAMES, choices=[end])
    yield ChatChunk(**NAMES, choices=[], usage=USAGE)


def turn() -> AsyncIterator[ChatChunk]:
    calls = [
        CallDelta(index=at, id=each.id, function=FunctionDelta(**each.function.model_dump()))
        for at, each in enumerate(CALLS)
        if each.function is not None
    ]
    return chunks(
        *(ChatDelta(reasoning_content=text) for text in ("Hm, ", "well.")),
        *(ChatDelta(content=text) for text in ("I ", "do.")),
        *(ChatDelta(tool_calls=[each]) for each in calls),
    )


async def test_a_message_of_anthropics_is_the_same_whole_and_as_events() -> None:
    whole = message(REPLY, answer())
    told = anthropic.types.Message.model_validate(whole)
    assert [block.type for block in told.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert told.stop_reason == "tool_use"
    text = "".join([event async for event in message_events(CHAT, answer(), turn())])
    events = TypeAdapter[Any](anthropic.types.RawMessageStreamEvent)
    for line in text.splitlines():
        if line.startswith("data: "):
            events.validate_json(line.removeprefix("data: "))
    [read], [streamed] = (read_call(captured(Face.ANTHROPIC, ANTHROPIC, body)) for body in (whole, text))
    assert streamed == read
    assert [json.loads(each.function.arguments) for each in read.action.calls if each.function] == [{"at": "lamp"}, {}]
    assert (read.action.text, read.action.reasoning_content) == (SAID.text, SAID.reasoning_content)


async def test_a_response_is_the_same_whole_and_as_events() -> None:
    whole, said = response(REQUEST, answer(), REPLY)
    openai.types.responses.Response.model_validate(whole)
    assert said == SAID
    told = [event async for event in response_events(REQUEST, answer(), turn())]
    assert [event for event in told if not isinstance(event, str)] == [SAID]
    text = "".join(event for event in told if isinstance(event, str))
    events = TypeAdapter[Any](ResponseStreamEvent)
    for line in text.splitlines():
        if line.startswith("data: "):
            events.validate_json(line.removeprefix("data: "))
    [read], [streamed] = (read_call(captured(Face.RESPONSES, RESPONSES, body)) for body in (whole, text))
    assert streamed == read
    assert read.action == SAID


async def test_a_turn_that_says_nothing_is_an_empty_text() -> None:
    text = "".join([str(event) async for event in response_events(REQUEST, answer(), chunks(finish="stop"))])
    assert read_call(captured(Face.RESPONSES, RESPONSES, text))[0].action == assistant("")
    text = "".join([event async for event in message_events(CHAT, answer(), chunks(finish="stop"))])
    assert read_call(captured(Face.ANTHROPIC, ANTHROPIC, text))[0].action == assistant("")


def test_the_newest_responses_are_known_and_no_more() -> None:
    known = KnownResponses(most=2)
    for name in ("a", "b"):
        known.add(name, (user(name),), SAID)
    assert known.get("a") == (user("a"), SAID)
    known.add("c", (), SAID)
    assert (known.get("a") is not None, known.get("b"), known.get("c")) == (True, None, (SAID,))
