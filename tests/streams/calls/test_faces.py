"""Captured calls of each face are read into the chats that they are, streamed or not, or into a reason."""

import json
from typing import Any

import pytest

from streams.calls.absence import Absence, AbsentContentError
from streams.calls.chat import Chat
from streams.calls.faces import read_call, response_messages
from streams.calls.records import CapturedCall, Face
from streams.messages import assistant, call, tool_result, user

ASK = {"model": "agent", "messages": [{"role": "user", "content": "Open the fridge."}]}
FUNCTION = {"name": "open", "description": "Opens.", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": FUNCTION}


def captured(face: Face, request: Any, reply: Any, **fields: Any) -> CapturedCall:
    texts = [text if isinstance(text, str) else json.dumps(text) for text in (request, reply)]
    return CapturedCall(
        receipt="r.0123456789abcdef",
        face=face,
        served="adapter-1",
        began_ns=1,
        ended_ns=2,
        request=texts[0],
        reply=texts[1],
        **fields,
    )


def stream(*events: Any, done: bool = True, named: bool = False) -> str:
    told = [f"event: {event.get('type')}\n" * named + f"data: {json.dumps(event)}\n\n" for event in events]
    return "".join([*told, "data: [DONE]\n\n" * done])


def read(face: Face, request: Any, reply: Any, **fields: Any) -> Chat:
    [chat] = read_call(captured(face, request, reply, **fields))
    return chat


def absence(face: Face, request: Any, reply: Any, **fields: Any) -> Absence:
    with pytest.raises(AbsentContentError) as raised:
        read_call(captured(face, request, reply, **fields))
    return raised.value.absence


def choice(message: Any, finish: str | None = "stop", index: int = 0) -> dict[str, Any]:
    return {"choices": [{"index": index, "message": {"role": "assistant", **message}, "finish_reason": finish}]}


def delta(told: Any, finish: str | None = None, index: int = 0) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": told, "finish_reason": finish}]}


def tool_delta(told: Any, name: str | None = None, arguments: str | None = None) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return delta({"tool_calls": [told | {"function": function}]})


# --- chat completions


def test_a_chat_is_read_with_its_tools_and_the_adapter_that_answered() -> None:
    chat = read(Face.CHAT, ASK | {"tools": [TOOL]}, choice({"content": "open fridge", "refusal": None}))
    assert (chat.messages, chat.action) == ((user("Open the fridge."),), assistant("open fridge"))
    assert (chat.model, chat.tools) == ("adapter-1", (TOOL,))


def test_several_choices_are_several_chats_also_where_their_chunks_interleave() -> None:
    pieces = [delta({"content": text}, index=at) for text, at in (("a", 1), ("b", 0), ("c", 1), ("d", 0))]
    ends = [delta({}, "stop", index=at) for at in (1, 0)]
    usage = {"choices": [], "usage": {"total_tokens": 3}}
    chats = read_call(captured(Face.CHAT, ASK | {"n": 2}, stream(*pieces, *ends, usage), streamed=True))
    assert [chat.action.text for chat in chats] == ["bd", "ac"]


def test_a_stream_that_ends_before_every_choice_has_ended_is_incomplete() -> None:
    first = [delta({"content": "a"}), delta({}, "stop")]
    assert absence(Face.CHAT, ASK | {"n": 2}, stream(*first, done=False)) == Absence.INCOMPLETE
    assert absence(Face.CHAT, ASK | {"n": 2}, stream(*first, delta({"content": "b"}, index=1))) == Absence.INCOMPLETE


def test_a_stream_is_whole_once_its_choices_have_ended_though_the_client_left_then() -> None:
    reply = stream(delta({"content": "go"}), delta({}, "stop"), done=False)
    assert read(Face.CHAT, ASK, reply, streamed=True, complete=False).action == assistant("go")


@pytest.mark.parametrize(
    "deltas",
    [
        [  # OpenAI's and vLLM's: the id and the name once
            tool_delta({"index": 0, "id": "c1", "type": "function"}, "open", ""),
            tool_delta({"index": 0}, None, '{"x"'),
            tool_delta({"index": 1, "id": "c2", "type": "function"}, "shut", ""),
            tool_delta({"index": 0}, None, ":1}"),
            tool_delta({"index": 1}, None, "{}"),
        ],
        [  # repeated in every chunk
            tool_delta({"index": 0, "id": "c1", "type": "function"}, "open", '{"x"'),
            tool_delta({"index": 0, "id": "c1", "type": "function"}, "open", ":1}"),
            tool_delta({"index": 1, "id": "c2", "type": "function"}, "shut", "{}"),
        ],
        [  # one index for all
            tool_delta({"index": 0, "id": "c1"}, "open", '{"x":1}'),
            tool_delta({"index": 0, "id": "c2"}, "shut", "{}"),
        ],
        [  # no index, and a name in pieces
            tool_delta({"id": "c1"}, "op", '{"x"'),
            tool_delta({"id": "c1"}, "en", ":1}"),
            tool_delta({"id": "c2"}, "shut"),
            tool_delta({}, None, "{}"),
        ],
    ],
)
def test_calls_in_pieces_are_put_together_however_servers_number_them(deltas: list[dict[str, Any]]) -> None:
    chat = read(Face.CHAT, ASK, stream(*deltas, delta({}, "tool_calls")))
    assert chat.action == assistant(None, call("open", '{"x":1}', "c1"), call("shut", "{}", "c2"))


def test_calls_without_ids_get_those_that_they_get_without_a_stream() -> None:
    calls = [{"function": {"name": "open", "arguments": "{}"}}]
    whole = read(Face.CHAT, ASK, choice({"content": None, "tool_calls": calls}, "tool_calls"))
    streamed = stream(tool_delta({"index": 0}, "open", "{}"), delta({}, "tool_calls"))
    assert read(Face.CHAT, ASK, streamed) == whole
    assert whole.action.calls[0].id == "call_0"


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_is_read_under_both_of_its_names(name: str) -> None:
    want = assistant("go", reasoning="let me see")
    assert read(Face.CHAT, ASK, choice({"content": "go", name: "let me see"})).action == want
    pieces = [delta({name: "let me"}), delta({name: " see"}), delta({"content": "go"}, "stop")]
    assert read(Face.CHAT, ASK, stream(*pieces)).action == want
    earlier = [*ASK["messages"], {"role": "assistant", "content": "go", name: "let me see"}]
    assert read(Face.CHAT, {"messages": earlier}, choice({"content": "on"})).messages[-1] == want


def test_a_refusal_is_kept_and_no_text_of_the_model() -> None:
    whole = read(Face.CHAT, ASK, choice({"content": None, "refusal": "I cannot."}))
    assert read(Face.CHAT, ASK, stream(delta({"refusal": "I can"}), delta({"refusal": "not."}, "stop"))) == whole
    assert list(whole.action.unreadable()) == ["refusal"]


def test_functions_of_before_there_were_tools_are_read_as_tools() -> None:
    earlier = [
        *ASK["messages"],
        {"role": "assistant", "content": None, "function_call": {"name": "open", "arguments": "{}"}},
        {"role": "function", "name": "open", "content": "It is open."},
    ]
    chat = read(Face.CHAT, {"messages": earlier, "functions": [FUNCTION]}, choice({"content": "done"}))
    assert chat.messages[1:] == (assistant(None, call("open", "{}", "call_0")), tool_result("It is open.", "call_0"))
    assert chat.tools == (TOOL,)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (choice({"content": "op"}, None), Absence.INCOMPLETE),
        (choice({"content": ""}), Absence.INCOMPLETE),
        (choice({"content": "x"}, "content_filter"), Absence.CUT_OFF),
        (choice({"content": "x"}, "abort"), Absence.INCOMPLETE),
        (choice({"content": "x"}, "error"), Absence.FAILED),
        (choice({"content": "I call."}, "tool_calls"), Absence.INCOMPLETE),
        (
            choice({"content": None, "tool_calls": [{"function": {"name": "f", "arguments": '{"a'}}]}, "length"),
            Absence.CUT_OFF,
        ),
        ({"error": {"message": "no", "code": "overloaded"}}, Absence.FAILED),
        ('{"choices": [{"index": 0, "mess', Absence.INCOMPLETE),
        ("<html>Bad gateway</html>", Absence.INCOMPLETE),
        ("", Absence.INCOMPLETE),
        ('{"choices": [}', Absence.NOT_UNDERSTOOD),
        ({"choices": []}, Absence.INCOMPLETE),
        (stream(delta({"content": "a"}), {"error": {"message": "the engine died", "code": 503}}), Absence.FAILED),
        (stream(delta({"content": "a"}), done=False), Absence.INCOMPLETE),
        ("data: nonsense\n\n", Absence.NOT_UNDERSTOOD),
        ("data: [1]\n\n", Absence.NOT_UNDERSTOOD),
    ],
)
def test_what_is_not_a_whole_reply_is_a_reason(reply: Any, reason: Absence) -> None:
    assert absence(Face.CHAT, ASK, reply) == reason


def test_a_text_that_a_limit_of_tokens_ended_is_what_the_client_got() -> None:
    assert read(Face.CHAT, ASK, choice({"content": "and then"}, "length")).action == assistant("and then")


def test_a_call_that_failed_or_was_cut_says_so() -> None:
    good = choice({"content": "go"})
    assert absence(Face.CHAT, ASK, good, status=500) == Absence.FAILED
    assert absence(Face.CHAT, ASK, good, complete=False) == Absence.INCOMPLETE
    assert absence(Face.CHAT, ASK, good, cut_at=100) == Absence.CUT_OFF


@pytest.mark.parametrize("messages", [None, [], "go", [1], [{"role": "wizard", "content": "x"}], [{"content": "x"}]])
def test_a_request_that_is_no_chat_is_not_understood(messages: Any) -> None:
    assert absence(Face.CHAT, {"messages": messages}, choice({"content": "go"})) == Absence.NOT_UNDERSTOOD


# --- completions


def test_a_prompt_is_what_a_user_said() -> None:
    reply = {"choices": [{"index": 0, "text": " fridge", "finish_reason": "length"}]}
    chat = read(Face.COMPLETIONS, {"prompt": "open the"}, reply)
    assert (chat.messages, chat.action) == ((user("open the"),), assistant(" fridge"))
    pieces = [{"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in (" fri", "dge")]
    end = {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}
    assert read(Face.COMPLETIONS, {"prompt": "open the", "stream": True}, stream(*pieces, end)) == chat


def test_several_prompts_and_choices_are_as_many_chats() -> None:
    choices = [{"index": at, "text": f"{at}!", "finish_reason": "stop"} for at in range(4)]
    chats = read_call(captured(Face.COMPLETIONS, {"prompt": ["a", "b"], "n": 2}, {"choices": choices}))
    assert [(chat.messages[0].text, chat.action.text) for chat in chats] == [
        *(("a", "0!"), ("a", "1!")),
        *(("b", "2!"), ("b", "3!")),
    ]


def test_an_echoed_prompt_is_no_part_of_the_reply_and_scores_are_no_reply() -> None:
    reply = {"choices": [{"index": 0, "text": "open the fridge", "finish_reason": "stop"}]}
    request = {"prompt": "open the", "echo": True}
    assert read(Face.COMPLETIONS, request, reply).action == assistant(" fridge")
    assert absence(Face.COMPLETIONS, request | {"max_tokens": 0}, reply) == Absence.NOT_CAPTURED
    assert absence(Face.COMPLETIONS, {"prompt": [1, 2]}, reply) == Absence.NOT_UNDERSTOOD


# --- Responses

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
        (response(output=[]), Absence.INCOMPLETE),
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


# --- Anthropic

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

    starts = [
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
    blocks: list[dict[str, Any]] = [
        event
        for index, (start, pieces) in enumerate(zip(starts, deltas, strict=True))
        for event in (
            {"type": "content_block_start", "index": index, "content_block": start},
            {"type": "ping"},
            *pieces,
            {"type": "content_block_stop", "index": index},
        )
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
