"""Captured calls of the Responses API are read into the chats that they are, or into a reason."""

from typing import Any

import pytest

from ratchet_client.messages import assistant, call, tool_result, user
from streams.calls.absence import Absence
from streams.calls.faces import read_call, response_messages
from streams.calls.records import Face
from tests.builders.calls import FUNCTION, absence, captured, read, stream

INPUT: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "input_text", "text": "Open it."}]},
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "x"},
    {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "I do.", "annotations": []}],
    },
    {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "open", "arguments": "{}", "status": "completed"},
    {"type": "function_call", "call_id": "c2", "name": "look", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "It is open."},
    {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "A lamp."}]},
]
SAID = [
    {"type": "reasoning", "id": "rs_2", "summary": [], "content": [{"type": "reasoning_text", "text": "aha"}]},
    {"type": "function_call", "id": "fc_2", "call_id": "c3", "name": "take", "arguments": '{"what": "lamp"}'},
]
ACTION = assistant(None, call("take", '{"what": "lamp"}', "c3"), reasoning="aha")


def response(status: str = "completed", **fields: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "status": status, "error": None, "output": SAID, **fields}


def test_items_are_read_as_messages_each_turn_of_the_model_one() -> None:
    tools = [{"type": "function", **FUNCTION, "strict": True}, {"type": "web_search"}]
    request = {"instructions": "Be quick.", "input": INPUT, "tools": tools}
    chat = read(Face.RESPONSES, request, response())
    assert chat.messages[0].model_dump(exclude_none=True) == {"role": "system", "content": "Be quick."}
    assert chat.messages[1:] == (
        user("Open it."),
        assistant("I do.", call("open", "{}", "c1"), call("look", "{}", "c2"), reasoning="hm"),
        tool_result("It is open.", "c1"),
        tool_result("A lamp.", "c2"),
    )
    assert chat.action == ACTION
    assert chat.tools == ({"type": "function", "function": {**FUNCTION, "strict": True}}, {"type": "web_search"})


@pytest.mark.parametrize("told", [{"output": SAID}, {"output": []}])
def test_a_streamed_response_is_that_of_its_last_event_or_the_items_of_the_others(told: Any) -> None:
    events = [
        {"type": "response.created", "response": response("in_progress", output=[])},
        {"type": "response.output_text.delta", "delta": "I", "output_index": 0},
        *({"type": "response.output_item.done", "output_index": at, "item": item} for at, item in enumerate(SAID)),
    ]
    end = {"type": "response.completed", "response": response(**told)}
    assert read(Face.RESPONSES, {"input": "go"}, stream(*events, end, done=False, named=True)).action == ACTION
    assert absence(Face.RESPONSES, {"input": "go"}, stream(*events, done=False, named=True)) == Absence.INCOMPLETE


def test_what_a_request_only_refers_to_makes_it_incomplete_unless_it_is_known() -> None:
    for name in ("previous_response_id", "conversation", "prompt"):
        assert absence(Face.RESPONSES, {"input": "go", name: "x"}, response()) == Absence.INCOMPLETE
    reference = [{"type": "item_reference", "id": "msg_1"}]
    assert absence(Face.RESPONSES, {"input": reference}, response()) == Absence.INCOMPLETE

    first = captured(Face.RESPONSES, {"instructions": "Be quick.", "input": "go"}, response())
    known = response_messages(first, read_call(first)[0])
    assert known is not None
    output = {"type": "function_call_output", "call_id": "c3", "output": "Taken."}
    request = {"instructions": "Be slow.", "input": [output], "previous_response_id": known[0]}
    [chat] = read_call(captured(Face.RESPONSES, request, response()), dict([known]).get)
    assert [message.text for message in chat.messages] == ["Be slow.", "go", "", "Taken."]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (response("failed", error={"code": "server_error", "message": "no"}), Absence.FAILED),
        (response("cancelled"), Absence.INCOMPLETE),
        (response("in_progress"), Absence.INCOMPLETE),
        (response("incomplete", incomplete_details={"reason": "content_filter"}), Absence.CUT_OFF),
        (response("incomplete", incomplete_details=None), Absence.INCOMPLETE),
        (
            response(
                "incomplete",
                incomplete_details={"reason": "max_output_tokens"},
                output=[{"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a'}],
            ),
            Absence.CUT_OFF,
        ),
        (stream({"type": "error", "code": "server_error", "message": "no"}, done=False), Absence.FAILED),
        (stream({"type": "response.failed", "response": response("failed")}, done=False), Absence.FAILED),
    ],
)
def test_a_response_that_is_not_whole_is_a_reason(reply: Any, reason: Absence) -> None:
    assert absence(Face.RESPONSES, {"input": "go"}, reply) == reason


def test_what_openais_servers_did_within_a_turn_is_kept_and_not_readable() -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"query": "lamps"}}
    told = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Found."}]}
    action = read(Face.RESPONSES, {"input": "go"}, response(output=[search, told])).action
    assert (action.text, list(action.unreadable())) == ("Found.", ["web_search_call"])
