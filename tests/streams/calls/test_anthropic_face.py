"""Captured calls of Anthropic's API are read into the chats that they are, or into a reason."""

from typing import Any

import pytest

from ratchet_client.messages import assistant, call, tool_result, user
from streams.calls.absence import Absence
from streams.calls.records import Face
from tests.builders.calls import TOOL, absence, read, stream

BLOCKS: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "hm", "signature": "s"},
    {"type": "text", "text": "I do."},
    {"type": "tool_use", "id": "t1", "name": "open", "input": {"what": "lid", "n": 1}},
    {"type": "tool_use", "id": "t2", "name": "look", "input": {}},
]
ANTHROPIC = {
    "max_tokens": 100,
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cch=f00;"},
        {"type": "text", "text": "Be quick.", "cache_control": {"type": "ephemeral"}},
    ],
    "tools": [{"name": "open", "description": "Opens.", "input_schema": {"type": "object", "properties": {}}}],
    "messages": [
        {"role": "user", "content": "Open it."},
        {"role": "assistant", "content": BLOCKS},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "It is open."}]},
                {"type": "tool_result", "tool_use_id": "t2", "is_error": True},
                {"type": "text", "text": "Go on."},
            ],
        },
    ],
}
TURN = assistant("I do.", call("open", '{"what":"lid","n":1}', "t1"), call("look", "{}", "t2"), reasoning="hm")


def anthropic_reply(reason: str | None = "tool_use", content: Any = BLOCKS) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": content, "stop_reason": reason, "usage": {}}


def anthropic_events(reason: str | None = "tool_use") -> list[dict[str, Any]]:
    def piece(index: int, kind: str, name: str, *texts: str) -> list[dict[str, Any]]:
        return [{"type": "content_block_delta", "index": index, "delta": {"type": kind, name: text}} for text in texts]

    starts: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "text", "text": ""},
        *({**block, "input": {}} for block in BLOCKS[2:]),
    ]
    deltas = [
        piece(0, "thinking_delta", "thinking", "h", "m") + piece(0, "signature_delta", "signature", "s"),
        piece(1, "text_delta", "text", "I ", "do."),
        piece(2, "input_json_delta", "partial_json", "", '{"what": "l', 'id", "n": 1}'),
        piece(3, "input_json_delta", "partial_json", ""),
    ]
    blocks = [
        event
        for index, (start, pieces) in enumerate(zip(starts, deltas, strict=True))
        for event in [
            dict[str, Any](type="content_block_start", index=index, content_block=start),
            dict[str, Any](type="ping"),
            *pieces,
            dict[str, Any](type="content_block_stop", index=index),
        ]
    ]
    end = {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": {}}
    return [
        {"type": "message_start", "message": anthropic_reply(None, [])},
        *blocks,
        *([end] if reason else []),
        {"type": "message_stop"},
    ]


def test_blocks_are_read_as_messages_and_results_of_tools_as_the_tools() -> None:
    chat = read(Face.ANTHROPIC, ANTHROPIC, anthropic_reply())
    assert chat.messages[0].text == "Be quick."
    assert chat.messages[1:4] == (user("Open it."), TURN, tool_result("It is open.", "t1"))
    failed, said = chat.messages[4:]
    assert (failed.role, failed.text, failed.tool_call_id) == ("tool", "", "t2")
    assert (said, chat.action, chat.tools) == (user("Go on."), TURN, (TOOL,))


def test_streamed_blocks_are_the_same_reply() -> None:
    whole = read(Face.ANTHROPIC, ANTHROPIC, anthropic_reply())
    assert read(Face.ANTHROPIC, ANTHROPIC, stream(*anthropic_events(), done=False, named=True)) == whole


def test_an_image_is_a_part_as_in_chat_completions() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    content = [{"type": "text", "text": "See:"}, {"type": "image", "source": source}]
    chat = read(Face.ANTHROPIC, {"messages": [{"role": "user", "content": content}]}, anthropic_reply())
    assert chat.messages[0].model_dump(exclude_none=True)["content"] == (
        {"type": "text", "text": "See:"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    )


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (anthropic_reply(None), Absence.INCOMPLETE),
        (anthropic_reply("tool_use", [{"type": "text", "text": "x"}]), Absence.INCOMPLETE),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "no"}}, Absence.FAILED),
        (stream({"type": "error", "error": {"type": "overloaded_error"}}, done=False, named=True), Absence.FAILED),
        (stream(*anthropic_events(None), done=False, named=True), Absence.INCOMPLETE),
        (
            stream(
                {"type": "message_start", "message": anthropic_reply(None, [])},
                {"type": "content_block_start", "index": 0, "content_block": BLOCKS[3]},
                {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{"}},
                {"type": "content_block_stop", "index": 0},
                {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}},
                done=False,
            ),
            Absence.CUT_OFF,
        ),
    ],
)
def test_a_message_of_anthropics_that_is_not_whole_is_a_reason(reply: Any, reason: Absence) -> None:
    assert absence(Face.ANTHROPIC, ANTHROPIC, reply) == reason
