"""Whose a token is, told from token ids alone."""

import pytest

from streams.errors import PolicyError
from streams.events import Message
from streams.policy.likelihood import ChatFrame, observation_spans, read_frame

# 1 ends a turn, 2 opens one, 3 to 5 are the roles, 6 a line feed that may melt into what follows, 9 the content.
OPENING = [2, 3, 6, 9, 1, 6]
FRAME = ChatFrame(before_action=(1, 6, 2, 5, 6), before_observation=(1, 6, 2, 4, 6), end=(1, 6))


def asked(*roles: str) -> list[Message]:
    return [Message.model_validate({"role": role, "content": "x"}) for role in roles]


def probe(content: int) -> list[int]:
    return [*OPENING, 2, 4, 6, content, 1, 6, 2, 5, 6, content, 1, 6, 2, 4, 6, content, 1, 6]


def test_the_template_frame_is_found_from_two_chats_that_differ_only_in_content() -> None:
    assert read_frame(probe(10), probe(11)) == FRAME


@pytest.mark.parametrize("other", [probe(10), probe(11)[:-1], [7, *probe(11)[1:]]])
def test_a_template_that_adds_more_than_a_fixed_frame_is_refused(other: list[int]) -> None:
    with pytest.raises(PolicyError, match="another base model"):
        read_frame(probe(10), other)


def test_an_observation_ends_with_the_token_that_ends_its_turn() -> None:
    ids = probe(10)
    ((begin, end),) = observation_spans(ids, asked("system", "user", "assistant", "user"), FRAME)
    assert ids[begin:end] == [10, 1]


def test_a_line_feed_merged_with_the_first_characters_of_the_content_still_opens_it() -> None:
    ids = [*OPENING, 2, 4, 6, 10, 1, 6, 2, 5, 77, 10, 1, 6, 2, 4, 77, 10, 11, 1, 6]
    ((begin, end),) = observation_spans(ids, asked("system", "user", "assistant", "user"), FRAME)
    assert ids[begin:end] == [10, 11, 1]


@pytest.mark.parametrize(
    "ids",
    [
        [*probe(10)[:-2], 1, 6, 2, 4, 6, 10, 1, 6],  # the last content holds the head of another observation
        [*probe(10)[:-2], 1, 6, 2, 5, 6, 10, 1, 6],  # of another action
        probe(10)[:-1],
        probe(10)[:10],
        [],
    ],
)
def test_tokens_that_do_not_show_the_turns_of_the_chat_are_refused(ids: list[int]) -> None:
    with pytest.raises(PolicyError, match="special tokens"):
        observation_spans(ids, asked("system", "user", "assistant", "user"), FRAME)


def test_actions_and_observations_must_take_turns() -> None:
    with pytest.raises(PolicyError, match="take turns"):
        observation_spans(probe(10), asked("user", "assistant", "user", "user"), FRAME)
