"""Parts of messages that are read for what they are: JSON that is a text, reasoning, calls, and what says nothing."""

import json
from typing import Any

import pytest

from ratchet_client.messages import Message, assistant, call, tool_result, user
from streams.otlp.dialects import read_chat
from streams.otlp.records import Attributes
from tests.builders.spans import conventions, openinference, openllmetry, span

SEEN = [("user", "Go.")]
CALL: Any = {"name": "look", "input": {"room": "kitchen"}}
LOOK = call("look", '{"room":"kitchen"}', "1")


def action(attributes: Attributes) -> Message | None:
    chat = read_chat(span(1, attributes), ())
    return chat.action if chat else None


def replied(parts: Any) -> Attributes:
    return conventions(SEEN, "") | {"gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": parts}])}


@pytest.mark.parametrize("dialect", [openllmetry, openinference])
@pytest.mark.parametrize(
    "items",
    [
        [{"type": "bug", "title": "x"}],
        [{"type": "text", "title": "x"}],
        [{"type": "tool_call", "title": "x"}],
        [{"type": "tool_use", "name": "look"}],
        [{"type": "tool_use", "input": {}}],
        [{"type": "tool_result", "score": 1}],
        [{"type": "image", "alt": "a cat"}],
        [{"type": "document", "source": "wiki", "title": "x"}],
        [{"type": "file", "content": "x"}],
        [{"type": "thinking", "minutes": 3}],
        [{"type": "tool_call", "name": 5}],
        [{"type": "text", "text": "x"}, {"type": "bug", "title": "x"}],
        [{"type": None, "text": "x"}],
        [{"text": "x"}],
    ],
)
def test_a_text_that_is_a_list_of_other_objects_stays_as_it_is(dialect: Any, items: Any) -> None:
    said = json.dumps(items)
    chat = read_chat(span(1, dialect([("user", said)], said)), ())
    assert chat is not None
    assert (chat.messages[0].content, chat.action.content) == (said, said)


def test_the_answer_of_a_tool_that_is_a_list_of_other_objects_stays_as_it_is() -> None:
    found: Any = [{"type": "bug", "title": "x"}]
    seen = [{"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "response": found}]}]
    chat = read_chat(span(1, conventions(SEEN, "ok") | {"gen_ai.input.messages": json.dumps(seen)}), ())
    assert chat is not None
    assert chat.messages[0].content == '[{"type":"bug","title":"x"}]'


@pytest.mark.parametrize(
    "call",
    [
        {"type": "tool_use", "id": "1", "name": "look", "input": {"room": "kitchen"}},
        {"toolUse": {"toolUseId": "1", "name": "look", "input": {"room": "kitchen"}}},
    ],
)
def test_blocks_that_openllmetry_quotes_are_read(call: Any) -> None:
    text = {"type": "text", "text": "hm"} if "type" in call else {"text": "hm"}
    assert action(openllmetry(SEEN, json.dumps([text, call]))) == assistant("hm", LOOK)


@pytest.mark.parametrize(
    "thought",
    [
        {"type": "text", "text": "secret thought", "thought": True},
        {"type": "text", "content": "secret thought", "thought": True},
        {"reasoningContent": {"reasoningText": {"text": "secret thought", "signature": "eGs="}}},
        {"type": "reasoning_content", "reasoning_content": {"text": "secret thought"}},
    ],
)
def test_thoughts_are_reasoning(thought: Any) -> None:
    expected = Message(role="assistant", content="go", reasoning_content="secret thought")
    assert action(replied([thought, {"type": "text", "text": "go"}])) == expected


def test_a_thought_in_openinference_is_reasoning() -> None:
    prefix = "llm.output_messages.0.message.contents.{}.message_content.{}".format
    told: Attributes = {prefix(0, "type"): "text", prefix(0, "text"): "hm", prefix(0, "thought"): True}
    told |= {prefix(1, "type"): "text", prefix(1, "text"): "go"}
    prompt = {key: value for key, value in openinference(SEEN, "").items() if "output" not in key}
    assert action(prompt | told) == Message(role="assistant", content="go", reasoning_content="hm")


def test_parts_of_converse_are_read() -> None:
    call = {"toolUse": {"toolUseId": "1", "name": "look", "input": {"room": "kitchen"}}}
    secret = {"reasoningContent": {"redactedContent": "eGs="}}
    assert action(replied([secret, {"text": "hm"}, call])) == assistant("hm", LOOK)
    answer = {"toolResult": {"toolUseId": "1", "content": [{"text": "A fridge."}, {"json": {"n": 1}}]}}
    seen = [{"role": "user", "content": [answer, {"text": "Go on."}, {"cachePoint": {"type": "default"}}]}]
    chat = read_chat(span(1, conventions(SEEN, "ok") | {"gen_ai.input.messages": json.dumps(seen)}), ())
    assert chat is not None
    assert chat.messages == (tool_result('A fridge.\n{"n":1}', "1"), user("Go on."))


@pytest.mark.parametrize(
    "part",
    [
        {"type": None},
        {},
        {"what": "x"},
        {"type": 5},
        {"type": "tool_call", "arguments": {}},
        {"type": "tool_call", "name": None, "arguments": {}},
        {"type": "tool_use", "name": 7, "input": {}},
        {"toolUse": {"input": {}}},
        {"function_call": {"args": {}}},
        {"toolResult": {"toolUseId": "1"}},
    ],
)
def test_a_part_that_does_not_say_what_it_is_is_hidden(part: Any) -> None:
    assert action(replied([part, {"type": "text", "text": "go"}])) is None


@pytest.mark.parametrize("role", ["assistant", "model"])
def test_the_analysis_channel_is_reasoning(role: str) -> None:
    told = [
        {"role": role, "channel": "analysis", "content": "hm"},
        {"role": role, "channel": "final", "content": "go"},
    ]
    expected = Message(role="assistant", content="go", reasoning_content="hm")
    assert action(conventions(SEEN, "") | {"gen_ai.output.messages": json.dumps(told)}) == expected
    attributes = conventions(SEEN, "ok") | {
        "gen_ai.input.messages": json.dumps([{"role": "user", "content": "Go."}, *told])
    }
    chat = read_chat(span(1, attributes), ())
    assert chat is not None
    assert chat.messages[1:] == (expected,)
    prompt = {key: value for key, value in openllmetry(SEEN, "").items() if "completion" not in key}
    flat: Attributes = {
        f"gen_ai.completion.{n}.{key}": text for n, item in enumerate(told) for key, text in item.items()
    }
    assert action(prompt | flat) == expected


def test_custom_tools_are_called_with_a_text() -> None:
    call = {"type": "custom", "custom": {"name": "run", "input": "ls"}}
    reply = {"role": "assistant", "content": None, "tool_calls": [call]}
    found = action(conventions(SEEN, "") | {"gen_ai.output.messages": json.dumps([reply])})
    assert found is not None
    (custom,) = found.calls
    assert (custom.type, custom.function, custom.model_extra) == ("custom", None, {"custom": call["custom"]})
    items = [{"type": "custom_tool_call", "call_id": "call_0", "name": "run", "input": "ls"}]
    assert action(conventions(SEEN, "") | {"gen_ai.output.messages": json.dumps(items)}) == found
