"""What a model thought is kept apart from what it said, in every dialect, and does not break the conversation."""

import json
from typing import Any

import pytest

from ratchet_client.events import EVENT, StepEvent
from ratchet_client.messages import Message
from streams.assembly.assembly import assemble
from streams.otlp.dialects import read_chat
from streams.otlp.records import Attributes
from streams.trust.rules import branch_request
from tests.builders.spans import conventions, openinference, openllmetry, root, span, states, stored

THOUGHT = Message(role="assistant", content="4", reasoning_content="Two and two.")
SEEN = [("user", "2 + 2?")]


def action(attributes: Attributes) -> Message | None:
    chat = read_chat(span(1, attributes), ())
    return chat.action if chat else None


@pytest.mark.parametrize(
    "parts",
    [
        [{"type": "reasoning", "content": "Two and two."}, {"type": "text", "content": "4"}],
        [{"type": "thinking", "content": "Two and two."}, {"type": "text", "content": "4"}],
        [{"type": "thinking", "thinking": "Two and two.", "signature": "x"}, {"type": "text", "text": "4"}],
        [{"type": "redacted_thinking", "data": "eGs="}, *[{"type": "reasoning", "text": "Two and two."}, "4"]],
        [{"type": "text", "content": "4"}, {"type": "reasoning", "content": "Two and two."}],
        [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "Two and two."}], "content": []}, "4"],
        [{"thought": True, "text": "Two and two."}, {"text": "4"}],
    ],
)
def test_reasoning_in_parts_is_apart_from_the_text(parts: list[Any]) -> None:
    for key in ("parts", "content"):
        output = json.dumps([{"role": "assistant", key: parts, "finish_reason": "stop"}])
        assert action(conventions(SEEN, "") | {"gen_ai.output.messages": output}) == THOUGHT


@pytest.mark.parametrize(
    "reply",
    [
        {"role": "assistant", "content": "4", "reasoning_content": "Two and two."},
        {"role": "assistant", "content": "4", "reasoning": "Two and two."},
        {"content": "4", "reasoning_content": [{"type": "text", "text": "Two and two."}]},
    ],
)
def test_reasoning_beside_the_content_is_read(reply: Any) -> None:
    assert action(conventions(SEEN, "") | {"gen_ai.output.messages": json.dumps([reply])}) == THOUGHT


@pytest.mark.parametrize(
    "completion",
    [
        {"0.role": "assistant", "0.content": "4", "0.reasoning": "Two and two."},
        {"0.content": "4", "0.reasoning_content": "Two and two."},
        {"0.role": "thinking", "0.content": "Two and two.", "1.role": "assistant", "1.content": "4"},
        {"0.content": '[{"type":"thinking","thinking":"Two and two.","signature":"x"},{"type":"text","text":"4"}]'},
    ],
)
def test_reasoning_in_numbered_completions_is_read(completion: dict[str, str]) -> None:
    prompt = {key: value for key, value in openllmetry(SEEN, "").items() if "completion" not in key}
    told: Attributes = {f"gen_ai.completion.{key}": value for key, value in completion.items()}
    assert action(prompt | told) == THOUGHT


@pytest.mark.parametrize(
    "output",
    [
        {
            "0.message.contents.0.message_content.type": "reasoning",
            "0.message.contents.0.message_content.text": "Two and two.",
            "0.message.contents.1.message_content.type": "text",
            "0.message.contents.1.message_content.text": "4",
        },
        {
            "0.message.role": "assistant",
            "0.message.contents.0.message_content.type": "reasoning",
            "0.message.contents.0.message_content.text": "Two and two.",
            "1.message.role": "assistant",
            "1.message.content": "4",
        },
        {"0.message.content": "4", "0.message.reasoning_content": "Two and two."},
    ],
)
def test_reasoning_in_openinference_is_read(output: dict[str, str]) -> None:
    told: Attributes = {f"llm.output_messages.{key}": value for key, value in output.items()}
    prompt = {key: value for key, value in openinference(SEEN, "").items() if "output" not in key}
    assert action(prompt | told) == THOUGHT


def test_reasoning_that_is_encrypted_or_hidden_is_none_and_the_reply_is_read() -> None:
    for part in (
        {"type": "reasoning", "content": "__REDACTED__"},
        {"type": "redacted_thinking", "data": "eGs="},
        {"type": "reasoning", "summary": [], "encrypted_content": "eGs="},
        {"type": "reasoning"},
    ):
        output = json.dumps([{"role": "assistant", "parts": [part, {"type": "text", "content": "4"}]}])
        found = action(conventions(SEEN, "") | {"gen_ai.output.messages": output})
        assert found == Message(role="assistant", content="4")
    items: Attributes = {
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.contents.0.message_content.type": "reasoning",
        "llm.output_messages.1.message.role": "assistant",
        "llm.output_messages.1.message.content": "4",
    }
    prompt = {key: value for key, value in openinference(SEEN, "").items() if "output" not in key}
    assert action(prompt | items) == Message(role="assistant", content="4")


def thinking(seen: list[tuple[str, str]], said: str, *, sent_back: bool) -> Attributes:
    """A call whose reply has reasoning; the agent sends that of earlier replies back, or not."""

    def message(role: str, content: str, shown: bool) -> Any:
        thought: list[Any] = [{"type": "reasoning", "content": f"I would {content}."}]
        text: Any = {"type": "text", "content": content}
        return {"role": role, "parts": [*(thought if role == "assistant" and shown else []), text]}

    return conventions(seen, said) | {
        "gen_ai.input.messages": json.dumps([message(*one, sent_back) for one in seen]),
        "gen_ai.output.messages": json.dumps([message("assistant", said, True)]),
    }


@pytest.mark.parametrize("sent_back", [[False] * 3, [True] * 3, [False, True, False]])
def test_a_conversation_goes_on_with_or_without_earlier_reasoning(sent_back: list[bool]) -> None:
    spans = [
        span(n + 1, thinking(*state, sent_back=back))
        for n, (state, back) in enumerate(zip(states(), sent_back, strict=True))
    ]
    steps: list[Any] = [event for event in assemble("run", [*spans, root()], {}).events if isinstance(event, StepEvent)]
    assert [(step.episode_id, step.action.reasoning_content) for step in steps] == [
        ("run", "I would open fridge."),
        ("run", "I would take apple."),
        ("run", "I would eat apple."),
    ]
    seen_again = {message.reasoning_content for message in steps[1].messages if message.role == "assistant"}
    assert seen_again == ({"I would open fridge."} if sent_back[1] else {None})
    assert branch_request("run", stored(steps), "trusted") is not None
    assert all(EVENT.validate_json(step.to_json()) == step for step in steps)
