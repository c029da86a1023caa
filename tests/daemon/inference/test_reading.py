"""A reply that is told in pieces is the reply that is told whole, whatever the text."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.inference.reading import ReplyReader
from daemon.inference.requests import ChatRequest
from learners.call_syntax import CallSyntax
from learners.reply_format import ReplyFormat, Thoughts

KEYS = frozenset({"name", "arguments"})
TAGS = CallSyntax(
    begin="<tool_call>\n",
    end="\n</tool_call>",
    between="\n</tool_call>\n<tool_call>\n",
    separator="\n",
    name_key="name",
    arguments_key="arguments",
    keys=KEYS,
)
BARE = CallSyntax("", "", None, "", "name", "arguments", KEYS)
THINK = Thoughts("<think>\n", "\n</think>\n\n", prompted=False)
FORMATS = {
    "text": ReplyFormat(),
    "tags": ReplyFormat(calls=TAGS),
    "bare": ReplyFormat(calls=BARE),
    "thinking": ReplyFormat(thoughts=THINK, calls=TAGS),
    "prompted": ReplyFormat(thoughts=Thoughts("", "\n</think>\n\n", prompted=True), calls=TAGS),
    "wrapped": ReplyFormat(content_begin="<|start|>", content_end="<|end|>"),
}
SPECIAL = {"<|start|>": 1, "<|end|>": 2}
CALL = json.dumps({"name": "find", "arguments": {"to": "Oslo"}})
PIECES = st.sampled_from(
    [
        *("<think>", "\n", "</think>", "<tool_call>", "</tool_call>", CALL, CALL[:9], CALL[9:], "{", " ", "Go.", "ä"),
        *("<tool", "_call>", "</th", "ink>", "<|start|>", "<|end|>", "\n\n", "<"),
    ]
)
TOOLS: tuple[dict[str, Any], ...] = ({"type": "function", "function": {"name": "find"}},)


def request(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "base", "messages": [{"role": "user", "content": "Go."}], **fields})


def told(
    reply_format: ReplyFormat, pieces: list[str], asked: ChatRequest, *, cut: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The whole message, and what its deltas add up to."""
    whole = ReplyReader(asked, reply_format, SPECIAL)
    whole.add("".join(pieces))
    message = whole.message(cut=cut)
    reader = ReplyReader(asked, reply_format, SPECIAL)
    deltas = [reader.add(piece) for piece in pieces]
    deltas += reader.rest(message)
    calls = [(call.function.name, call.function.arguments) for delta in deltas for call in delta.tool_calls or ()]
    streamed = {
        "content": "".join(delta.content or "" for delta in deltas),
        "reasoning": "".join(delta.reasoning_content or "" for delta in deltas),
        "calls": calls,
    }
    own = [each.function for each in message.tool_calls or ()]
    assert all(own)
    expected = {
        "content": message.content or "",
        "reasoning": message.reasoning_content or "",
        "calls": [(each.name, each.arguments) for each in own if each is not None],
    }
    return expected, streamed


@pytest.mark.parametrize("name", FORMATS)
@given(
    pieces=st.lists(PIECES, max_size=12),
    tools=st.booleans(),
    choice=st.sampled_from(["auto", "none"]),
    cut=st.booleans(),
)
def test_the_pieces_of_a_stream_add_up_to_the_whole_reply(
    name: str, pieces: list[str], tools: bool, choice: str, cut: bool
) -> None:
    asked = request(tools=TOOLS if tools else (), tool_choice=choice)
    expected, streamed = told(FORMATS[name], pieces, asked, cut=cut)
    assert streamed == expected
    if not tools or choice == "none":
        assert expected["calls"] == []


def test_reasoning_content_and_calls_are_parted() -> None:
    pieces = ["<think>", "\nHm.", "\n</think>\n", "\nGo.", "\n<tool", "_call>\n", CALL, "\n</tool_call>"]
    expected, streamed = told(FORMATS["thinking"], pieces, request(tools=TOOLS))
    assert streamed == expected == {"content": "Go.", "reasoning": "Hm.", "calls": [("find", '{"to": "Oslo"}')]}
    hidden, _ = told(FORMATS["thinking"], pieces, request(tools=TOOLS, include_reasoning=False))
    assert hidden == expected | {"reasoning": ""}


def test_content_is_told_until_a_call_may_have_begun() -> None:
    reader = ReplyReader(request(tools=TOOLS), FORMATS["tags"], SPECIAL)
    told = [reader.add(piece).content for piece in ("Let me", " see.", "\n<tool", "_call>")]
    assert told == ["Let me", " see.", None, None]


def test_special_tokens_in_a_content_are_left_out_unless_they_are_wanted() -> None:
    for fields, content in (({}, "ab"), ({"skip_special_tokens": False}, "a<|end|>b")):
        reader = ReplyReader(request(tools=TOOLS, **fields), FORMATS["tags"], SPECIAL)
        reader.add("a<|end|>b")
        assert reader.message().content == content


def test_ids_of_calls_are_unique() -> None:
    text = f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{CALL}\n</tool_call>"
    readers = [ReplyReader(request(tools=TOOLS), FORMATS["tags"], SPECIAL) for _ in range(2)]
    for reader in readers:
        reader.add(text)
    ids = [call.id for reader in readers for call in reader.message().tool_calls or ()]
    assert len(set(ids)) == 4
