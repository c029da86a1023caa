"""The same conversation gives the same messages, whichever instrumentation saw it."""

import json
from typing import Any

import pytest

from ratchet_client.messages import Message, assistant, call, tool_result, user
from streams.otlp.dialects import Chat, dialect_of
from streams.otlp.model_calls import model_calls
from streams.otlp.records import Attributes, LogRecord, Span, SpanEvent
from tests.builders.spans import TRACE, conventions, openinference, openllmetry, span, states

ARGUMENTS = '{"room":"kitchen"}'


def tool_chat(first: str, second: str, reasoning: str | None = None) -> Chat:
    """A chat with two calls of these ids."""
    seen = (
        Message(role="system", content="You play."),
        user("Go."),
        assistant(None, call("look", ARGUMENTS, first)),
        tool_result("A fridge.", first),
    )
    return Chat(seen, assistant(None, call("look", ARGUMENTS, second), reasoning=reasoning), None)


def read(attributes: Attributes, **fields: Any) -> Chat | None:
    found = span(1, attributes, **fields)
    dialect = dialect_of(found)
    assert dialect is not None
    return dialect.read(found, ())


@pytest.mark.parametrize("dialect", [conventions, openllmetry, openinference])
def test_a_chat_reads_the_same_in_every_dialect(dialect: Any) -> None:
    seen, said = states()[2]
    assert read(dialect(seen, said)) == Chat(
        tuple(Message.model_validate({"role": role, "content": content}) for role, content in seen),
        Message(role="assistant", content=said),
        "ratchet-7",
    )


def test_tool_calls_read_the_same_in_every_dialect() -> None:
    structured = [
        {"role": "system", "parts": [{"type": "text", "content": "You play."}]},
        {"role": "user", "parts": [{"type": "text", "content": "Go."}]},
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "1", "name": "look", "arguments": {"room": "kitchen"}}],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "response": "A fridge."}]},
    ]
    output = [{"role": "assistant", "parts": [{"type": "reasoning", "content": "hm"}, structured[2]["parts"][0]]}]
    as_conventions: Attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.input.messages": json.dumps(structured),
        "gen_ai.output.messages": output,  # type: ignore[dict-item]  # structured attributes are as good as JSON
    }
    as_openllmetry: Attributes = {
        "gen_ai.prompt.0.role": "system",
        "gen_ai.prompt.0.content": '[{"type": "text", "text": "You play."}]',
        "gen_ai.prompt.1.role": "user",
        "gen_ai.prompt.1.content": "Go.",
        "gen_ai.prompt.2.role": "assistant",
        "gen_ai.prompt.2.tool_calls.0.name": "look",
        "gen_ai.prompt.2.tool_calls.0.arguments": ARGUMENTS,
        "gen_ai.prompt.3.role": "tool",
        "gen_ai.prompt.3.content": "A fridge.",
        "gen_ai.completion.0.tool_calls.0.name": "look",
        "gen_ai.completion.0.tool_calls.0.arguments": ARGUMENTS,
    }
    message = "llm.input_messages.{}.message.{}".format
    function = "message.tool_calls.0.tool_call.function"
    as_openinference: Attributes = {
        "openinference.span.kind": "LLM",
        message(0, "role"): "system",
        message(0, "contents.0.message_content.type"): "text",
        message(0, "contents.0.message_content.text"): "You play.",
        message(1, "role"): "user",
        message(1, "content"): "Go.",
        message(2, "role"): "assistant",
        f"llm.input_messages.2.{function}.name": "look",
        f"llm.input_messages.2.{function}.arguments": ARGUMENTS,
        message(3, "role"): "tool",
        message(3, "content"): "A fridge.",
        f"llm.output_messages.0.{function}.name": "look",
        f"llm.output_messages.0.{function}.arguments": ARGUMENTS,
    }
    for attributes in (as_openllmetry, as_openinference):
        assert read(attributes) == tool_chat("call_0", "call_1")
    assert read(as_conventions) == tool_chat("1", "1", "hm")
    with_ids = as_openllmetry | {"gen_ai.prompt.2.tool_calls.0.id": "a", "gen_ai.prompt.3.tool_call_id": "a"}
    assert read(with_ids | {"gen_ai.completion.0.tool_calls.0.id": "b"}) == tool_chat("a", "b")
    called = "message.tool_calls.0.tool_call.id"
    with_ids = as_openinference | {f"llm.input_messages.2.{called}": "a", message(3, "tool_call_id"): "a"}
    assert read(with_ids | {f"llm.output_messages.0.{called}": "b"}) == tool_chat("a", "b")


def test_messages_in_events_are_read_wherever_they_are_put() -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "look", "arguments": ARGUMENTS}}]
    events: list[tuple[str, dict[str, Any]]] = [
        ("gen_ai.system.message", {"content": "You play."}),
        ("gen_ai.user.message", {"content": "Go."}),
        ("gen_ai.assistant.message", {"content": None, "tool_calls": calls}),
        ("gen_ai.tool.message", {"content": "A fridge.", "id": "1"}),
        ("gen_ai.choice", {"index": 0, "finish_reason": "stop", "message": {"content": None}, "tool_calls": calls}),
    ]
    chat = tool_chat("1", "1")
    bare: Attributes = {"gen_ai.operation.name": "chat"}
    logs = [
        LogRecord(trace_id=TRACE, span_id=f"{1:016x}", name=name, time_ns=number, body=body)
        for number, (name, body) in enumerate(events)
    ]
    ((found,), _) = model_calls([span(1, bare)], reversed(logs))
    assert found.chat == chat

    flat = tuple(
        SpanEvent(
            name=name,
            time_ns=number,
            attributes={key: json.dumps(v) if isinstance(v, dict | list) else v for key, v in body.items()},
        )
        for number, (name, body) in enumerate(events)
    )
    assert read(bare, events=flat) == chat

    seen, said = states()[0]
    details = {key: value for key, value in conventions(seen, said).items() if "messages" in key}
    event = SpanEvent(name="gen_ai.client.inference.operation.details", time_ns=1, attributes=details)
    assert read(bare, events=(event,)) == replace_model(read(conventions(seen, said)))


def replace_model(chat: Chat | None) -> Chat:
    assert chat is not None
    return Chat(chat.messages, chat.action, None)


def test_instructions_beside_the_messages_come_first() -> None:
    attributes = conventions([("user", "Go.")], "look") | {
        "gen_ai.system_instructions": '[{"type": "text", "content": "You play."}]'
    }
    chat = read(attributes)
    assert chat is not None
    assert chat.messages == (Message(role="system", content="You play."), Message(role="user", content="Go."))


@pytest.mark.parametrize(
    "missing",
    [
        "llm.input_messages.0.message.role",
        "llm.input_messages.1.message.role",
        "llm.output_messages.0.message.content",
    ],
)
def test_a_chat_that_lost_attributes_is_not_read(missing: str) -> None:
    seen, said = states()[1]
    attributes = {
        key: value
        for key, value in openinference(seen, said).items()
        if not key.startswith(missing.removesuffix(".content") if "output" in missing else missing)
    }
    assert read(attributes) is None


@pytest.mark.parametrize(
    "messages",
    ["[{", "{}", "[]", "[1]", '[{"role": "alien", "parts": []}]', 7, None, '[{"parts": "x"}]', '["\\ud800"]'],
)
def test_malformed_messages_are_not_read(messages: Any) -> None:
    attributes = conventions([("user", "Go.")], "look")
    assert read(attributes | {"gen_ai.input.messages": messages}) is None


def test_other_spans_are_not_model_calls() -> None:
    others: list[Attributes] = [
        {},
        {"gen_ai.operation.name": "execute_tool"},
        {"gen_ai.operation.name": "invoke_agent"},
        {"openinference.span.kind": "AGENT"},
        {"gen_ai.operation.name": ["chat"]},
    ]
    assert [dialect_of(span(1, attributes)) for attributes in others] == [None] * 5


def test_a_call_within_a_call_counts_once() -> None:
    seen, said = states()[0]
    outer = span(1, openinference(seen, said))
    inner = span(2, conventions(seen, said), parent_id=outer.span_id)
    loop: list[Span] = [span(3, parent_id=f"{4:016x}"), span(4, conventions(seen, said), parent_id=f"{3:016x}")]
    calls, unreadable = model_calls([inner, outer], ())
    assert ([call.span for call in calls], unreadable) == ([outer], [])
    assert len(model_calls(loop, ())[0]) == 1
