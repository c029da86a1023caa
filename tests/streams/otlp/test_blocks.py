"""Tool calls and their answers read the same, whichever API's blocks, parts or items a dialect quotes."""

import json
from typing import Any

import pytest

from ratchet_client.events import StepEvent
from ratchet_client.messages import Message, assistant, call, tool_result, user
from streams.assembly.assembly import assemble
from streams.otlp.dialects import Chat, read_chat
from streams.otlp.records import Attributes, SpanEvent
from tests.builders.spans import root, span

LOOK = call("look", '{"room":"kitchen"}', "1")
OPEN = call("open", '{"what":"fridge"}', "2")
USE: Any = {"type": "tool_use", "id": "1", "name": "look", "input": {"room": "kitchen"}}
USE_TOO: Any = {"type": "tool_use", "id": "2", "name": "open", "input": {"what": "fridge"}}


def answer(content: Any, number: int = 1, **more: Any) -> Any:
    return {"type": "tool_result", "tool_use_id": str(number), "content": content, **more}


def anthropic(seen: list[tuple[str, Any]], said: Any, *, twice: bool = False) -> Attributes:
    """A call as OpenLLMetry's instrumentation of Anthropic writes it, its tool calls maybe `twice`."""
    attributes: Attributes = {"gen_ai.operation.name": "chat", "gen_ai.system": "anthropic"}
    for number, (role, content) in enumerate(seen):
        written = content if isinstance(content, str) else json.dumps(content)
        attributes |= {f"gen_ai.prompt.{number}.role": role, f"gen_ai.prompt.{number}.content": written}
        uses = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
        for index, block in enumerate(block for block in uses if twice and block["type"] == "tool_use"):
            prefix = f"gen_ai.prompt.{number}.tool_calls.{index}"
            attributes |= {f"{prefix}.name": block["name"], f"{prefix}.arguments": json.dumps(block["input"])}
    written = said if isinstance(said, str) else json.dumps(said)
    return attributes | {"gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": written}


def conventions(seen: list[Any], said: list[Any]) -> Attributes:
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.input.messages": json.dumps(seen),
        "gen_ai.output.messages": json.dumps(said),
    }


def read(attributes: Attributes) -> Chat:
    chat = read_chat(span(1, attributes), ())
    assert chat is not None
    return chat


def told(chat: Chat) -> list[Message]:
    return [*chat.messages, chat.action]


@pytest.mark.parametrize("twice", [False, True])
def test_calls_of_an_agent_with_tools_are_one_episode(twice: bool) -> None:
    first: list[tuple[str, Any]] = [("system", "You play."), ("user", "Go.")]
    second = [*first, ("assistant", [{"type": "text", "text": "I look."}, USE]), ("user", [answer("A fridge.")])]
    third = [
        *second,
        ("assistant", [USE_TOO, USE]),
        (
            "user",
            [answer("Open.", 2), answer([{"type": "text", "text": "Still there."}]), {"type": "text", "text": "Hm?"}],
        ),
    ]
    spans = [
        span(1, anthropic(first, [{"type": "text", "text": "I look."}, USE])),
        span(2, anthropic(second, [USE_TOO, USE], twice=twice)),
        span(3, anthropic(third, "Done.", twice=twice)),
    ]
    steps: list[Any] = [event for event in assemble("run", [*spans, root()], {}).events if isinstance(event, StepEvent)]
    assert [(step.episode_id, step.action, step.observation) for step in steps] == [
        ("run", assistant("I look.", LOOK), (tool_result("A fridge.", "1"),)),
        (
            "run",
            assistant(None, OPEN, LOOK),
            (tool_result("Open.", "2"), tool_result("Still there.", "1"), user("Hm?")),
        ),
        ("run", assistant("Done."), ()),
    ]
    assert [message.role for message in steps[2].messages[-4:]] == ["assistant", "tool", "tool", "user"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("A fridge.", "A fridge."),
        ([{"type": "text", "text": "A"}, {"type": "text", "text": "fridge."}], "A\nfridge."),
        ("", ""),
        ([], "[]"),
        ({"n": 1}, '{"n":1}'),
    ],
)
def test_the_content_of_an_answer_is_its_text(content: Any, text: str) -> None:
    seen: list[tuple[str, Any]] = [("user", "Go."), ("assistant", [USE]), ("user", [answer(content)])]
    assert told(read(anthropic(seen, "Done.")))[2] == tool_result(text, "1")
    failed = [*seen[:2], ("user", [answer(content, is_error=True)])]
    expected = {"role": "tool", "content": text, "tool_call_id": "1", "is_error": True}
    assert told(read(anthropic(failed, "Done.")))[2] == Message.model_validate(expected)


def test_an_answer_without_content_is_empty_and_one_that_was_hidden_is_not_read() -> None:
    seen: list[tuple[str, Any]] = [("user", "Go."), ("assistant", [USE])]
    bare: Any = [{"type": "tool_result", "tool_use_id": "1"}]
    assert told(read(anthropic([*seen, ("user", bare)], "Done.")))[2] == tool_result("", "1")
    for hidden in ("__REDACTED__", [{"type": "text"}]):
        assert read_chat(span(1, anthropic([*seen, ("user", [answer(hidden)])], "Done.")), ()) is None


def test_a_text_that_happens_to_be_json_stays() -> None:
    seen: list[tuple[str, Any]] = [("user", "What?")]
    assert told(read(anthropic(seen, '{"type": "tool_use"}'))) == [user("What?"), assistant('{"type": "tool_use"}')]


GEMINI: list[Any] = [
    {"role": "user", "parts": [{"text": "Go."}]},
    {"role": "model", "parts": [{"function_call": {"name": "look", "args": {"room": "kitchen"}}}]},
    {"role": "user", "parts": [{"function_response": {"name": "look", "response": {"result": "A fridge."}}}]},
]
RESPONSES: list[Any] = [
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Go."}]},
    {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "eA=="},
    {"type": "function_call", "call_id": "1", "name": "look", "arguments": '{"room": "kitchen"}'},
    {"type": "function_call_output", "call_id": "1", "output": "A fridge."},
]
SEMANTIC: list[Any] = [
    {"role": "user", "parts": [{"type": "text", "content": "Go."}]},
    {
        "role": "assistant",
        "parts": [{"type": "tool_call", "id": "1", "name": "look", "arguments": {"room": "kitchen"}}],
    },
    {"role": "user", "parts": [{"type": "tool_call_response", "id": "1", "result": "A fridge."}]},
]
BLOCKS: list[Any] = [
    {"role": "user", "content": "Go."},
    {"role": "assistant", "content": [USE]},
    {"role": "user", "content": [answer("A fridge.")]},
]
OPENAI: list[Any] = [
    {"role": "user", "content": [{"type": "text", "text": "Go."}]},
    {
        "role": "assistant",
        "content": [],
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"room":"kitchen"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "A fridge."}]},
]


@pytest.mark.parametrize("seen", [GEMINI, RESPONSES, SEMANTIC, BLOCKS, OPENAI])
def test_a_tool_call_and_its_answer_are_the_same_in_the_form_of_every_api(seen: list[Any]) -> None:
    chat = read(conventions(seen, seen[1:3] if seen is RESPONSES else seen[1:2]))
    called, next_one = chat.messages[1].calls[0], chat.action.calls[0]
    assert (called.id, next_one.id) == (("call_0", "call_1") if seen is GEMINI else ("1", "1"))
    assert (called.function, next_one.function) == (LOOK.function, LOOK.function) or seen is RESPONSES
    assert told(chat) == [
        user("Go."),
        assistant(None, called),
        tool_result("A fridge.", called.id),
        assistant(None, next_one),
    ]


def test_the_items_of_one_reply_are_one_message() -> None:
    other = {"type": "function_call", "call_id": "2", "name": "open", "arguments": '{"what":"fridge"}'}
    said: list[Any] = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Where?"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        RESPONSES[2],
        other,
    ]
    reply = assistant("I look.", call("look", '{"room": "kitchen"}', "1"), OPEN, reasoning="Where?")
    assert read(conventions(RESPONSES[:1], said)).action == reply
    history = [*RESPONSES[:1], *said, {"type": "function_call_output", "call_id": "1", "output": "A fridge."}]
    assert read(conventions(history, said)).messages[1] == reply


def test_of_several_choices_the_first_counts() -> None:
    part = {"type": "tool_call", "name": "open", "arguments": {"what": "fridge"}}
    other = {"role": "assistant", "parts": [part]}
    said: list[Any] = [{"role": "assistant", "parts": [{"type": "text", "content": "4"}]}, other, {"parts": 7}]
    assert read(conventions(SEMANTIC[:1], said)).action == assistant("4")


def test_output_items_in_openinference_are_one_reply_and_choices_are_not() -> None:
    function = "message.tool_calls.{}.tool_call.function.{}".format
    attributes: Attributes = {
        "openinference.span.kind": "LLM",
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.content": "Go.",
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": "I look.",
        "llm.output_messages.1.message.role": "assistant",
        f"llm.output_messages.1.{function(1, 'name')}": "look",
        f"llm.output_messages.1.{function(1, 'arguments')}": '{"room": "kitchen"}',
    }
    assert read(attributes).action == assistant("I look.", call("look", '{"room": "kitchen"}', "call_0"))
    assert read(attributes | {"llm.invocation_parameters": '{"n": 2}'}).action == assistant("I look.")
    assert read_chat(span(1, attributes, dropped_attributes=1), ()) is None


def test_blocks_quoted_in_other_dialects_are_read() -> None:
    seen = json.dumps([answer("A fridge.")])
    listed = '[{"type": "file", "name": "a"}]'
    attributes: Attributes = {
        "openinference.span.kind": "LLM",
        "llm.output_messages.0.message.content": json.dumps([USE]),
    }
    for number, content in enumerate(("Go.", seen, listed)):
        prefix = f"llm.input_messages.{number}.message"
        attributes |= {f"{prefix}.role": "user", f"{prefix}.content": content}
    expected = [user("Go."), tool_result("A fridge.", "1"), user(listed), assistant(None, LOOK)]
    assert told(read(attributes)) == expected
    events = [("gen_ai.user.message", {"content": content}) for content in ("Go.", seen, listed)]
    events.append(("gen_ai.choice", {"message": json.dumps({"content": [USE]})}))
    flat = tuple(SpanEvent(name=name, time_ns=n, attributes=found) for n, (name, found) in enumerate(events))
    chat = read_chat(span(1, {"gen_ai.operation.name": "chat"}, events=flat), ())
    assert chat is not None
    assert told(chat) == expected


@pytest.mark.parametrize(
    "reply",
    [
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "parts": [{"type": "refusal", "content": "No."}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    ],
)
def test_a_refusal_is_kept_as_the_api_has_it(reply: Any) -> None:
    found = read(conventions(SEMANTIC[:1], [reply])).action
    assert found == Message.model_validate({"role": "assistant", "refusal": "No."})
