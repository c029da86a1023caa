"""Whose a token is, told from token ids alone."""

import pytest

from ratchet_client.messages import Message
from streams.errors import PolicyError
from streams.policy.likelihood import ChatFrame, Observed, observation_spans, observed, read_frame, with_role

# 1 ends a turn, 2 opens one, 3 to 5 are the roles, 6 a line feed that may melt into what follows, 8 opens a tool's
# result and 7 closes it, 9 is the content, 20 a tool call.
OPENING = [2, 3, 6, 9, 1, 6]
FRAME = ChatFrame(before_action=(1, 6, 2, 5, 6), before_observation={"user": (1, 6, 2, 4, 6)})
WITH_TOOLS = ChatFrame(FRAME.before_action, {**FRAME.before_observation, "tool": (1, 6, 2, 4, 6, 8, 6)})


def asked(*roles: str) -> list[Message]:
    return [Message.model_validate({"role": role, "content": "x"}) for role in roles]


def probe(content: int) -> list[int]:
    return [*OPENING, 2, 4, 6, content, 1, 6, 2, 5, 6, content, 1, 6, 2, 4, 6, content, 1, 6]


def tool_probe(content: int) -> list[int]:
    """A call with a content, and its result."""
    return [*OPENING, 2, 4, 6, content, 1, 6, 2, 5, 6, content, 20, 1, 6, 2, 4, 6, 8, 6, content, 7, 1, 6]


def test_the_template_frame_is_found_from_two_chats_that_differ_only_in_content() -> None:
    assert read_frame(probe(10), probe(11)) == FRAME
    assert with_role(FRAME, "tool", tool_probe(10), tool_probe(11)) == WITH_TOOLS


@pytest.mark.parametrize("other", [probe(10), probe(11)[:-1], [7, *probe(11)[1:]]])
def test_a_template_that_adds_more_than_a_fixed_frame_is_refused(other: list[int]) -> None:
    with pytest.raises(PolicyError, match="another base model"):
        read_frame(probe(10), other)
    with pytest.raises(PolicyError, match="another base model"):
        with_role(FRAME, "tool", tool_probe(10), tool_probe(10))


def test_an_observation_ends_with_the_token_that_ends_its_turn() -> None:
    ids = probe(10)
    ((begin, end),) = observation_spans(ids, asked("system", "user", "assistant", "user"), FRAME)
    assert ids[begin:end] == [10, 1]


def test_an_observation_of_several_messages_is_one_from_its_first_content_to_its_last_end() -> None:
    results, words = [1, 6, 2, 4, 6, 8, 6, 10, 7, 8, 6, 11, 7], [1, 6, 2, 4, 6, 12, 1, 6, 2, 4, 6, 13]
    action = [1, 6, 2, 5, 6]
    ids = [*OPENING, 2, 4, 6, 9, *action, 20, *results, *action, 9, *words, 1, 6]
    chat = asked("system", "user", "assistant", "tool", "tool", "assistant", "user", "user")
    first, second = observation_spans(ids, chat, WITH_TOOLS)
    assert ids[slice(*first)] == [10, 7, 8, 6, 11, 7, 1]
    assert ids[slice(*second)] == [12, 1, 6, 2, 4, 6, 13, 1]


def test_a_line_feed_merged_with_the_first_characters_of_the_content_still_opens_it() -> None:
    ids = [*OPENING, 2, 4, 6, 10, 1, 6, 2, 5, 77, 10, 1, 6, 2, 4, 77, 10, 11, 1, 6]
    ((begin, end),) = observation_spans(ids, asked("system", "user", "assistant", "user"), FRAME)
    assert ids[begin:end] == [10, 11, 1]


@pytest.mark.parametrize(
    "ids",
    [
        [*probe(10)[:-2], 1, 6, 2, 4, 6, 10, 1, 6],  # the last content holds the head of another observation
        [*probe(10)[:-2], 1, 6, 2, 5, 6, 10, 1, 6],  # of another action
        probe(10)[:-2],
        probe(10)[:10],
        [],
    ],
)
def test_tokens_that_do_not_show_the_turns_of_the_chat_are_refused(ids: list[int]) -> None:
    with pytest.raises(PolicyError, match="special tokens"):
        observation_spans(ids, asked("system", "user", "assistant", "user"), FRAME)


def test_observations_are_what_stands_between_actions() -> None:
    chat = asked("system", "user", "assistant", "tool", "user", "assistant", "assistant", "user", "assistant")
    assert observed(chat) == (Observed(3, 5, 1), Observed(7, 8, 3))
    assert observed(asked("system", "user")) == ()
