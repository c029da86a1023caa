"""Grammars of replies in the formats of several models: what they let through is read as the calls that it is."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from daemon.inference.formats import ToolChoice, demanded_calls, read_response_format
from daemon.inference.grammar import Grammars, ReplyGrammar
from daemon.inference.grammar_words import grammar_tokenizer
from learners.chat import ChatTokenizer
from ratchet_client.messages import Message, user
from streams.errors import RequestRefusedError
from tests.builders.base_models import write_base

FIELDS = {"to": {"enum": ["Oslo", 'a "b" <x>']}, "hours": {"type": "integer", "minimum": 0, "maximum": 9}}
PARAMETERS = {"type": "object", "properties": FIELDS, "required": ["to", "hours"], "additionalProperties": False}
TOOLS: tuple[dict[str, Any], ...] = tuple(
    {"type": "function", "function": {"name": name, "parameters": PARAMETERS}} for name in ("route", "route_by_night")
)
ANSWER = read_response_format({"type": "json_schema", "json_schema": {"schema": {"type": "boolean"}, "strict": True}})


@dataclass(frozen=True)
class Model:
    """A tokenizer with the grammars of its replies."""

    chat: ChatTokenizer
    grammars: Grammars
    writer: ReplyGrammar

    def follow(self, grammar: str, begin: str, seed: int) -> str | None:
        """A text drawn at random that starts with `begin`, None where the grammar does not let that through."""
        matcher = self.grammars.matcher(grammar, ())
        drawn = self.chat.encode(begin)
        if matcher.try_consume_tokens(drawn) < len(drawn):
            return None
        draw = np.random.default_rng(seed)
        for _ in range(200):
            bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
            allowed = np.flatnonzero(bits)
            ends = [token for token in allowed if token in self.chat.stop_tokens]
            token = int(ends[0] if ends else draw.choice(allowed))
            assert matcher.consume_token(token), matcher.get_error()
            if ends:
                return self.text(drawn)
            drawn.append(token)
        raise AssertionError("the reply did not end")

    def text(self, tokens: list[int]) -> str:
        return str(self.chat.tokenizer.decode(tokens, skip_special_tokens=False))

    def grammar(self, mode: Literal["none", "auto", "required"], *, parallel: bool = True, answer: bool = False) -> str:
        calls = demanded_calls(TOOLS, ToolChoice(mode), parallel=parallel)
        text = self.writer.text(calls, ANSWER if answer else None)
        assert text is not None
        return text

    @property
    def begin(self) -> str:
        """The text with which calls begin, empty where nothing does."""
        syntax = self.chat.reply_format.calls
        return syntax.begin if syntax is not None else ""

    def parse(self, text: str | None) -> Message:
        assert text is not None
        return self.chat.reply_format.parse(text)


@pytest.fixture(scope="module", params=["smollm2", "qwen2_5", "qwen3", "llama3_2"])
def model(request: pytest.FixtureRequest, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return made(tiny_base, tmp_path_factory.mktemp("grammar"), request.param)


def made(tiny_base: Path, folder: Path, template: str) -> Model:
    chat = ChatTokenizer(write_base(tiny_base, folder, template))
    added = chat.tokenizer.backend_tokenizer.get_added_tokens_decoder()
    special = {token.content: number for number, token in added.items() if token.special}
    # A model may have more tokens than its tokenizer.
    grammars = Grammars(lambda: grammar_tokenizer(chat.tokenizer, len(chat.tokenizer) + 5, chat.stop_tokens))
    return Model(chat, grammars, ReplyGrammar(chat.reply_format, special))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("thinks", [False, True])
def test_what_has_to_be_calls_is_read_as_calls_and_written_as_the_template_writes_them(
    model: Model, seed: int, thinks: bool
) -> None:
    thoughts = model.chat.reply_format.thoughts
    if thinks and thoughts is None:
        pytest.skip("this model does not think")
    reasoning = f"{thoughts.begin}First, Oslo.{thoughts.end}" if thinks and thoughts else ""
    begin = reasoning + (model.begin or "{")
    text = model.follow(model.grammar("required"), begin, seed)
    message = model.parse(text)
    assert message.calls
    assert message.content is None
    assert message.reasoning_content == ("First, Oslo." if thinks else None)
    for call in message.calls:
        assert call.function is not None
        assert call.function.name in ("route", "route_by_night")
        assert json.loads(call.function.arguments).keys() == FIELDS.keys()
    turn = model.chat.reply([user("Go.")], message, TOOLS)
    written = model.text(list(turn.ids[turn.written[0] : turn.written[1] - 1]))
    # This template writes that there were no thoughts, which a model may leave out.
    assert text is not None
    assert written.removeprefix("" if thinks or thoughts is None else "<think>\n\n</think>\n\n") == text


def test_at_most_one_call_is_made_where_parallel_ones_are_not_wanted(model: Model) -> None:
    grammar, syntax = model.grammar("auto", parallel=False), model.chat.reply_format.calls
    assert syntax is not None
    if syntax.begin:
        message = model.parse(model.follow(grammar, f"Well.{syntax.begin}", 1))
        assert (len(message.calls), message.text) == (1, "Well.")
        assert model.follow(grammar, "<tool_ Well.", 1) == "<tool_ Well."
    one = model.follow(grammar, syntax.begin or "{", 2)
    assert len(model.parse(one).calls) == 1
    assert model.follow(grammar, f"{one}{syntax.between or ' '}", 2) is None
    assert model.follow(grammar, "Well", 3) == "Well"


def test_no_call_is_begun_where_none_is_wanted(model: Model) -> None:
    begin = model.begin
    assert model.follow(model.grammar("none"), f"Well.{begin}" if begin else '{"name"', 1) is None
    assert model.follow(model.grammar("none"), "Well, {}", 1) == "Well, {}"


def test_calls_and_an_answer_in_its_format_stand_beside_each_other(model: Model) -> None:
    grammar = model.grammar("auto", answer=True)
    assert model.follow(grammar, "tru", 1) == "true"
    assert len(model.parse(model.follow(grammar, model.begin or "{", 2)).calls) >= 1
    assert model.follow(grammar, "Well", 1) is None
    assert model.follow(model.grammar("none", answer=True), model.begin or "{", 2) is None


def test_without_demands_there_is_no_grammar(model: Model) -> None:
    assert model.writer.text(None, None) is None
    assert model.writer.text(demanded_calls(TOOLS, None, parallel=True), None) is None


@pytest.mark.nightly
@pytest.mark.parametrize("template", ["gptoss", "deepseek_r1_distill", "cohere2"])
def test_an_answer_in_its_format_is_the_content_for_every_template(
    tiny_base: Path, tmp_path: Path, template: str
) -> None:
    model = made(tiny_base, tmp_path, template)
    grammar = model.writer.text(None, ANSWER)
    assert grammar is not None
    thoughts = model.chat.reply_format.thoughts
    for begin in {
        f"{thoughts.begin}Oslo.{thoughts.end}" if thoughts else "",
        *([] if thoughts and thoughts.prompted else [""]),
    }:
        message = model.parse(model.follow(grammar, begin, 1))
        assert message.content in ("true", "false")
        assert message.reasoning_content == ("Oslo." if begin else None)
    with pytest.raises(RequestRefusedError, match="no call can be demanded of this model"):
        model.grammar("required")


def test_text_that_a_grammar_leaves_no_choice_of_is_tokenised_as_the_model_has_learned_it(model: Model) -> None:
    text = 'The "fridge" is ünlikely to be 盘子 closed.'
    matcher = model.grammars.matcher(f"start: answer\nanswer: {json.dumps(text)}", ())
    for token in model.chat.encode(text):
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        assert np.flatnonzero(bits).tolist() == [token]
        assert matcher.consume_token(token)
