"""Captured chat completions and completions are read into the chats that they are, or into a reason."""

from typing import Any

import pytest

from ratchet_client.messages import assistant, call, tool_result, user
from streams.calls.absence import Absence
from streams.calls.faces import read_call
from streams.calls.records import Face
from tests.builders.calls import FUNCTION, TOOL, absence, captured, read, stream

ASK = {"model": "agent", "messages": [{"role": "user", "content": "Open the fridge."}]}


def choice(message: Any, finish: str | None = "stop", index: int = 0) -> dict[str, Any]:
    return {"choices": [{"index": index, "message": {"role": "assistant", **message}, "finish_reason": finish}]}


def delta(told: Any, finish: str | None = None, index: int = 0) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": told, "finish_reason": finish}]}


def tool_delta(told: Any, name: str | None = None, arguments: str | None = None) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return delta({"tool_calls": [told | {"function": function}]})


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


@pytest.mark.parametrize("content", ["", "\n", None])
def test_a_reply_that_says_nothing_is_what_the_client_got(content: str | None) -> None:
    want = assistant(content or "")
    assert read(Face.CHAT, ASK, choice({"content": content})).action == want
    assert read(Face.CHAT, ASK, stream(delta({"content": content}), delta({}, "stop"))).action == want


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
