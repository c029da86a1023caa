"""What the learner counts as tokens is what the server makes of the same chat."""

import json
from pathlib import Path
from shutil import copytree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.chat import ChatTokenizer
from streams.environments.harness import ChatHarness
from streams.errors import ConfigurationError
from streams.events import Message

END_OF_TURN = "<|im_end|>"
GAME = (
    *ChatHarness().opening("Put the things away.\n\nYou are in the kitchen. You see a fridge that is closed."),
    Message(role="assistant", content="open fridge"),
    Message(role="user", content="You open the fridge.\n\nIt is empty. [score 0.00]"),
)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="<|>"), max_size=30)


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> ChatTokenizer:
    return ChatTokenizer(tiny_base)


def content(tokenizer: ChatTokenizer, message: Message) -> list[int]:
    tokens = tokenizer.message(message)
    begin, end = tokens.content
    return list(tokens.ids[begin:end])


def test_messages_one_by_one_are_the_tokens_of_the_whole_chat(tokenizer: ChatTokenizer) -> None:
    by_message = [token for message in GAME for token in tokenizer.message(message).ids]
    assert by_message == tokenizer.encode(tokenizer.text(GAME))


@given(turns=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3))
@settings(max_examples=100, deadline=None)
def test_for_any_content_the_tokens_of_messages_are_those_of_the_whole_chat(
    tokenizer: ChatTokenizer, turns: list[tuple[str, str]]
) -> None:
    chat = list(GAME)
    for action, observation in turns:
        chat += [Message(role="assistant", content=action), Message(role="user", content=observation)]
    by_message = [token for message in chat for token in tokenizer.message(message).ids]
    assert by_message == tokenizer.encode(tokenizer.text(chat))


def test_the_tokens_of_an_author_are_the_content_and_the_end_of_the_turn(tokenizer: ChatTokenizer) -> None:
    for message in GAME:
        assert content(tokenizer, message) == tokenizer.encode(message.content + END_OF_TURN)


@pytest.mark.parametrize("word", ["assistant", "s", "end", "im", "", "ass\nistant"])
def test_words_that_the_template_uses_too_are_counted_only_in_the_authors_content(
    tokenizer: ChatTokenizer, word: str
) -> None:
    message = Message(role="assistant", content=word)
    assert content(tokenizer, message) == tokenizer.encode(word + END_OF_TURN)


def test_a_template_whose_messages_depend_on_each_other_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    base = tmp_path / "counting"
    copytree(tiny_base, base)
    numbered = "{% for message in messages %}<|im_start|>{{ loop.revindex }}{{ message.content }}<|im_end|>{% endfor %}"
    settings = json.loads((base / "tokenizer_config.json").read_text())
    settings["chat_template"] = numbered
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    (base / "chat_template.jinja").write_text(numbered)
    with pytest.raises(ConfigurationError, match="choose another base model"):
        ChatTokenizer(base)
