from typing import Any

import pytest

from streams.calls.labels import ResponseKeys, call_key, episode_key, read_labels
from streams.calls.records import CallLabels, Face

SYSTEM = {"role": "system", "content": "Help."}
FIRST = {"role": "user", "content": "Hi."}
LATER: list[dict[str, Any]] = [{"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "17"}]


def key(face: Face, body: dict[str, Any], principal: str | None = None, **headers: str) -> str:
    named = {f"x-ratchet-{name}": value for name, value in headers.items()}
    return call_key(face, read_labels(named, body, principal), body, principal, ResponseKeys(8))


@pytest.mark.parametrize(
    ("body", "labels"),
    [
        ({"metadata": {"episode_id": "e"}}, CallLabels(episode="e")),
        ({"metadata": {"session_id": "s", "thread_id": "t"}}, CallLabels(conversation="s")),
        ({"metadata": {"conversation_id": 7}}, CallLabels(conversation="7")),
        ({"metadata": {"thread_id": " t "}}, CallLabels(conversation="t")),
        ({"conversation": "conv_1"}, CallLabels(conversation="conv_1")),
        ({"conversation": {"id": "conv_1"}}, CallLabels(conversation="conv_1")),
        ({"metadata": {"user_id": "anna"}}, CallLabels(principal="anna")),
        ({"user": "anna", "safety_identifier": "hash"}, CallLabels(principal="hash")),
        ({"metadata": None, "user": "", "conversation": []}, CallLabels()),
        ({"metadata": "x", "user": {"a": 1}, "conversation": True}, CallLabels()),
    ],
)
def test_labels_are_read_from_the_requests_own_fields(body: dict[str, Any], labels: CallLabels) -> None:
    assert read_labels({}, body) == labels


def test_headers_win_over_fields_and_a_token_over_both() -> None:
    body = {"user": "anna", "metadata": {"episode_id": "e", "session_id": "s"}}
    headers = {f"x-ratchet-{name}": f"h-{name}" for name in ("principal", "agent", "episode", "conversation", "task")}
    assert read_labels(headers | {"x-ratchet-seed": "-5", "x-ratchet-environment": "desk"}, body) == CallLabels(
        principal="h-principal",
        agent="h-agent",
        episode="h-episode",
        conversation="h-conversation",
        task="h-task",
        environment="desk",
        seed=-5,
    )
    assert read_labels(headers, body, "ben").principal == "ben"


@pytest.mark.parametrize("seed", ["", "x", "1.5", "9" * 5000, str(2**63)])
def test_a_label_that_cannot_be_read_is_absent(seed: str) -> None:
    assert read_labels({"x-ratchet-seed": seed, "x-ratchet-task": "  "}, {}) == CallLabels()


def test_an_id_that_is_too_long_is_replaced_by_its_hash() -> None:
    found = read_labels({"x-ratchet-episode": "e" * 600}, {}).episode
    assert found is not None
    assert len(found) == 64
    assert found == read_labels({}, {"metadata": {"episode_id": "e" * 600}}).episode


@pytest.mark.parametrize(
    ("face", "first", "second"),
    [
        (Face.CHAT, {"messages": [SYSTEM, FIRST]}, {"messages": [SYSTEM, FIRST, *LATER], "temperature": 1}),
        (Face.ANTHROPIC, {"system": "Help.", "messages": [FIRST]}, {"system": "Help.", "messages": [FIRST, *LATER]}),
        (
            Face.ANTHROPIC,
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi."}]}]},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi.", "cache_control": {}}]}, *LATER]},
        ),
        (
            Face.RESPONSES,
            {"instructions": "Help.", "input": "Hi."},
            {"instructions": "Help.", "input": [FIRST, *LATER]},
        ),
        (
            Face.RESPONSES,
            {"input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi."}]}]},
            {"input": [FIRST, {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}]},
        ),
        (Face.COMPLETIONS, {"prompt": "You are " * 20}, {"prompt": "You are " * 20 + "here."}),
    ],
)
def test_a_call_that_goes_on_has_the_key_of_the_first(
    face: Face, first: dict[str, Any], second: dict[str, Any]
) -> None:
    assert key(face, first) == key(face, second)
    assert key(face, first) != key(face, first | {"messages": [], "input": [], "prompt": "Other."})


@pytest.mark.parametrize("face", list(Face))
@pytest.mark.parametrize("content", [None, 5, "x", [None], [{}], {"a": 1}, [[1]]])
def test_whatever_a_request_holds_has_a_key(face: Face, content: object) -> None:
    body = dict.fromkeys(("messages", "input", "prompt", "system", "instructions", "metadata", "user"), content)
    assert len(key(face, body)) == 16
    assert len(key(face, {"messages": [{"role": "user", "content": content}]})) == 16


def test_ids_come_before_the_opening_and_an_episode_before_a_conversation() -> None:
    body = {"messages": [SYSTEM, FIRST]}
    assert key(Face.CHAT, body, episode="e") == episode_key(None, "e") == key(Face.ANTHROPIC, {}, episode="e")
    assert key(Face.CHAT, body, conversation="c") == key(Face.RESPONSES, {"input": "x", "conversation": "c"})
    assert key(Face.CHAT, body, episode="e", conversation="c") == episode_key(None, "e")


def test_only_a_proved_principal_sets_the_same_ids_apart() -> None:
    assert key(Face.CHAT, {"user": "anna"}, episode="e") == key(Face.CHAT, {"user": "ben"}, episode="e")
    assert key(Face.CHAT, {}, "anna", episode="e") != key(Face.CHAT, {}, "ben", episode="e")


def test_the_newest_responses_are_remembered() -> None:
    keys = ResponseKeys(2)
    for name in ("a", "b"):
        keys.remember(name, name)
    assert keys.get("a") == "a"
    keys.remember("c", "c")
    assert (keys.get("a"), keys.get("b"), keys.get("c")) == ("a", None, "c")
