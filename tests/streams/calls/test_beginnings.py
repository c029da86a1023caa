"""Whether a call may begin an episode, on each face."""

from typing import Any

import pytest

from streams.calls.beginnings import may_begin
from streams.calls.records import Face

USER = {"role": "user", "content": "Hi."}
SYSTEM = {"role": "system", "content": "Help."}
ASSISTANT = {"role": "assistant", "content": "Hello."}


@pytest.mark.parametrize(
    ("face", "body", "begins"),
    [
        (Face.CHAT, {"messages": [SYSTEM, USER]}, True),
        (Face.CHAT, {"messages": [{"role": "developer", "content": "Help."}, USER, USER]}, True),
        (Face.CHAT, {"messages": [SYSTEM, USER, ASSISTANT, USER]}, False),
        (Face.CHAT, {"messages": [USER, {"role": "tool", "tool_call_id": "1", "content": "x"}]}, False),
        (Face.CHAT, {"messages": [USER, {"role": "function", "name": "f", "content": "x"}]}, False),
        (Face.CHAT, {}, True),
        (Face.CHAT, {"messages": [3]}, False),
        (Face.ANTHROPIC, {"system": "Help.", "messages": [USER]}, True),
        (Face.ANTHROPIC, {"messages": [USER, ASSISTANT]}, False),
        (Face.ANTHROPIC, {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi."}]}]}, True),
        (
            Face.ANTHROPIC,
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1"}]}]},
            False,
        ),
        (Face.RESPONSES, {"input": "Hi."}, True),
        (Face.RESPONSES, {"input": [USER]}, True),
        (Face.RESPONSES, {"input": "Go on.", "previous_response_id": "resp_1"}, False),
        (Face.RESPONSES, {"input": "Go on.", "conversation": {"id": "conv_1"}}, False),
        (Face.RESPONSES, {"input": [USER, {"type": "function_call", "name": "f"}]}, False),
        (Face.RESPONSES, {"input": [{"type": "function_call_output", "call_id": "1", "output": "x"}]}, False),
        (Face.COMPLETIONS, {"prompt": "Once upon a time"}, True),
    ],
)
def test_a_call_may_begin_an_episode_unless_it_shows_a_reply(face: Face, body: dict[str, Any], begins: bool) -> None:
    assert may_begin(face, body) is begins
