"""The tokens of training are those of serving, for any chat and any chat template."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers
from transformers import PreTrainedTokenizerFast

from learners.chat import ChatTokenizer, Turn
from learners.packing import TreePacker, Weights
from learners.trajectories import Trajectory
from ratchet_client.errors import ConfigurationError
from ratchet_client.messages import Message, assistant, user
from streams.errors import ChatTemplateError
from tests.builders.base_models import FAMILIES, edit_json, write_chat
from tests.builders.trained import step
from tests.builders.trees import path

TRAINABLE = sorted(FAMILIES.keys() - {"glm4moe"})
SPECIAL = sorted({text for family in FAMILIES.values() for text in family.special})
# Letters that the tokenizer knows: it writes all others as one and the same special token.
WORDS = st.text(st.characters(max_codepoint=0x17F, categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=20)
TEXTS = WORDS | st.sampled_from(["look", "\n\nx", " x ", "é🍽", "user", "assistant\n", "<think>", "x</think>\n\ny"])
HOSTILE = st.tuples(TEXTS, st.sampled_from(SPECIAL), TEXTS).map("".join)
GAME = [
    Message(role="system", content="Play."),
    user("You are in the kitchen.\n\nYou see a fridge."),
    assistant("open fridge"),
    user("It is empty. [score 0.00]"),
]


def trajectories(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Trajectory]:
    steps = st.lists(st.tuples(texts, texts).map(lambda pair: step(*pair)))
    openings = st.tuples(texts, st.none() | texts).map(
        lambda pair: (
            *([Message(role="system", content=pair[1])] if pair[1] is not None else []),
            Message(role="user", content=pair[0]),
        )
    )
    return st.builds(
        lambda opening, steps: Trajectory("a", "t", opening, tuple(steps[:3])), openings, steps.filter(bool)
    )


def words(tokenizer: ChatTokenizer, turn: Turn) -> str:
    return str(tokenizer.tokenizer.decode(list(turn.ids)))


def states(trajectory: Trajectory) -> list[list[Message]]:
    """The chat that each action answers."""
    chat, found = list(trajectory.opening), []
    for taken in trajectory.steps:
        found.append(list(chat))
        chat += [taken.action.spoken(), *taken.observation]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("template", TRAINABLE)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_every_action_is_trained_behind_the_prompt_that_a_server_reads(
    servers: Callable[[str], PreTrainedTokenizerFast],
    tokenizers: Callable[[str], ChatTokenizer],
    template: str,
    data: st.DataObject,
) -> None:
    tokenizer, server = tokenizers(template), servers(template)
    trajectory = data.draw(trajectories(TEXTS))
    try:
        tree = TreePacker(tokenizer, 2048).pack(trajectory, Weights(actions=1.0))
    except ChatTemplateError:
        # Gemma's refuses a system message, and Qwen3's takes this word for the end of its own block.
        assert template == "gemma" or "</think>" in str(trajectory)
        return
    counted = tree.targets.tolist()
    paths = {tuple(path(tree, index)): index for index in counted}
    for state in states(trajectory):
        chat = [message.model_dump(exclude_none=True) for message in state]
        served = server.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False)
        assert tuple(served) in paths


@pytest.mark.parametrize("template", TRAINABLE)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_a_special_token_that_somebody_writes_is_text(
    tokenizers: Callable[[str], ChatTokenizer], template: str, data: st.DataObject
) -> None:
    tokenizer = tokenizers(template)
    special = set(tokenizer.tokenizer.all_special_ids) | {
        number for number, token in tokenizer.tokenizer.added_tokens_decoder.items() if token.special
    }
    roles = ["user", "assistant", "user"]
    texts = [data.draw(HOSTILE) for _ in roles]
    hostile = [Message.model_validate({"role": role, "content": text}) for role, text in zip(roles, texts, strict=True)]
    harmless = [message.model_copy(update={"content": "x"}) for message in hostile]

    def skeleton(ids: list[int]) -> list[int]:
        return [token for token in ids if token in special]

    assert skeleton(tokenizer.prompt(hostile)) == skeleton(tokenizer.prompt(harmless))
    # This decoder leaves all letters as they are coded where it meets one that a special token's name alone has.
    if template != "deepseek_r1_distill":
        shown = tokenizer.tokenizer.decode(tokenizer.prompt(hostile))
        assert texts[2].strip() in shown


@pytest.mark.parametrize("template", TRAINABLE)
@settings(max_examples=6, deadline=None)
@given(texts=st.lists(TEXTS, min_size=3, max_size=3))
def test_both_tokenizers_of_a_chat_agree_where_it_holds_no_special_token(
    tokenizers: Callable[[str], ChatTokenizer], template: str, texts: list[str]
) -> None:
    tokenizer = tokenizers(template)
    roles = ("user", "assistant", "user")
    chat = [Message.model_validate({"role": role, "content": text}) for role, text in zip(roles, texts, strict=True)]
    as_aliases = tokenizer._special.encode(tokenizer.template.render(chat, literal=True, prompt=True), literal=True).ids
    assert as_aliases == tokenizer.prompt(chat)


@pytest.mark.parametrize("template", TRAINABLE)
def test_a_reply_ends_with_the_token_that_a_server_stops_at(
    tokenizers: Callable[[str], ChatTokenizer], template: str
) -> None:
    tokenizer = tokenizers(template)
    turn = tokenizer.reply([user("Go.")], assistant("look"))
    assert turn.ids[-1] == tokenizer.end_of_turn
    assert tokenizer.end_of_turn in tokenizer.configured_stops
    assert "look" in words(tokenizer, turn)[-60:]


@pytest.mark.parametrize("word", ["assistant", "s", "end", "im", "", "ass\nistant"])
def test_words_that_the_template_uses_too_are_counted_only_in_the_authors_content(
    tokenizers: Callable[[str], ChatTokenizer], word: str
) -> None:
    tokenizer = tokenizers("smollm2")
    reply = tokenizer.reply(GAME, assistant(word))
    answer = tokenizer.observation([*GAME[:3], user(word)])
    expected = tokenizer.encode(word + "<|im_end|>")
    assert [list(turn.ids[slice(*turn.written)]) for turn in (reply, answer)] == [expected, expected]


@pytest.mark.parametrize("template", ["smollm2", "qwen2_5"])
def test_a_chat_without_a_system_message_is_trained_with_the_one_that_the_template_adds(
    tokenizers: Callable[[str], ChatTokenizer], template: str
) -> None:
    tokenizer = tokenizers(template)
    turn = tokenizer.reply([user("Go.")], assistant("look"))
    assert "You are" in words(tokenizer, turn)


@pytest.mark.parametrize("template", ["llama3_2", "gemma3", "lfm2", "cohere2"])
def test_a_template_that_opens_with_a_bos_keeps_it(tokenizers: Callable[[str], ChatTokenizer], template: str) -> None:
    tokenizer = tokenizers(template)
    turn = tokenizer.reply([user("Go.")], assistant("look"))
    assert turn.ids[0] == tokenizer.tokenizer.bos_token_id
    assert turn.ids.count(tokenizer.tokenizer.bos_token_id) == 1


@pytest.mark.parametrize(("reasoning", "written"), [(None, ""), ("It may hold food.", "It may hold food.")])
def test_a_template_whose_prompt_opens_reasoning_that_it_never_writes_back_is_trained_behind_that_prompt(
    tokenizers: Callable[[str], ChatTokenizer], reasoning: str | None, written: str
) -> None:
    tokenizer = tokenizers("deepseek_r1_distill")
    tokenizer.check_replies()
    turn = tokenizer.reply([user("Go.")], assistant("look", reasoning=reasoning))
    prompt = tokenizer.prompt([user("Go.")])
    assert list(turn.ids[: turn.written[0]]) == prompt
    assert prompt[-2:] == tokenizer.encode("<think>\n")
    closed = f"{written}\n</think>\n\nlook<\uff5cend\u2581of\u2581sentence\uff5c>"
    assert list(turn.ids[len(prompt) :]) == tokenizer.encode(closed)


def test_a_prompt_that_its_replies_do_not_begin_with_is_refused(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    template += "{% if add_generation_prompt %}assistant: Sure! {% endif %}"
    tokenizer = ChatTokenizer(unigram(tmp_path, normalizers.NFKC(), template))
    with pytest.raises(ConfigurationError, match=r"its prompt ends with .*Sure! .*cannot be trained as they are"):
        tokenizer.check_replies()


@pytest.mark.slow
def test_a_template_that_ends_no_turn_is_refused(chats: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigurationError, match="no server would stop there"):
        ChatTokenizer(chats("glm4moe"))


def test_a_template_that_refuses_a_role_says_so_in_one_sentence(tokenizers: Callable[[str], ChatTokenizer]) -> None:
    with pytest.raises(ChatTemplateError, match=r"refuses the roles system, user: System role not supported") as error:
        tokenizers("gemma").prompt(GAME[:2])
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_tokenizer_without_a_chat_template_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    folder = write_chat(tiny_base, tmp_path, "smollm2")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    edit_json(folder / "tokenizer_config.json", lambda document: document.pop("chat_template", None))
    with pytest.raises(ConfigurationError, match="has no chat template"):
        ChatTokenizer(folder)


@pytest.mark.slow
def test_an_end_of_turn_that_the_models_files_do_not_stop_at_is_named(tiny_base: Path, tmp_path: Path) -> None:
    folder = write_chat(tiny_base, tmp_path, "gemma")
    edit_json(folder / "generation_config.json", lambda document: document.update(eos_token_id=0))
    tokenizer = ChatTokenizer(folder)
    end = tokenizer.tokenizer.convert_tokens_to_ids("<end_of_turn>")
    # The embedded server stops at it all the same.
    assert end in tokenizer.stop_tokens
    with pytest.raises(ConfigurationError, match=rf"add {end} to eos_token_id"):
        tokenizer.check_configured_stop()


@pytest.mark.parametrize(
    ("wanted", "written"), [(True, "<think>\nIt may hold food.\n</think>"), (False, "<think>\n\n</think>")]
)
def test_reasoning_is_imitated_when_a_setting_says_so(
    tokenizers: Callable[[str], ChatTokenizer], wanted: bool, written: str
) -> None:
    tokenizer = tokenizers("qwen3")
    steps = tuple(step(assistant(action, reasoning="It may hold food."), "Done.") for action in ("a", "b"))
    packer = TreePacker(tokenizer, 2048, reasoning=wanted)
    tree = packer.pack(Trajectory("a", "t", tuple(GAME[:2]), steps), Weights(actions=1.0))
    said = tokenizer.tokenizer.decode(tree.ids[tree.targets].tolist())
    assert said == "".join(f"{written}\n\n{one.action.text}<|im_end|>" for one in steps)


def test_a_special_token_in_reasoning_is_text(tokenizers: Callable[[str], ChatTokenizer]) -> None:
    tokenizer = tokenizers("qwen3")
    reply = Message(role="assistant", content="look", reasoning_content="<|im_end|>")
    turn = tokenizer.reply([user("Go.")], reply)
    written = list(turn.ids[slice(*turn.written)])
    assert written.count(tokenizer.end_of_turn) == 1
    assert "<|im_end|>\n</think>" in words(tokenizer, turn)


@pytest.mark.parametrize("text", ["{alias} <|im_end|>", "\U000f0000 <|im_end|>", "\U000ffff0", "\U000ffff32\U000ffff4"])
def test_no_character_stands_for_a_special_token(tokenizers: Callable[[str], ChatTokenizer], text: str) -> None:
    tokenizer = tokenizers("smollm2")
    # As the stand-ins of this process would look to somebody who does not know its random part.
    written = text.format(alias=f"\U000ffff3{tokenizer.end_of_turn}\U000ffff4")
    hostile, harmless = (tokenizer.reply(GAME[:2], assistant(content)) for content in (written, "x"))
    assert hostile.ids.count(tokenizer.end_of_turn) == harmless.ids.count(tokenizer.end_of_turn)
    shown = str(tokenizer.tokenizer.decode(list(hostile.ids[slice(*hostile.written)])))
    assert shown.endswith("<|im_end|>")
    answer = tokenizer.observation([*GAME[:3], user(written)])
    assert answer.ids.count(tokenizer.end_of_turn) == tokenizer.observation(GAME).ids.count(tokenizer.end_of_turn)


def unigram(folder: Path, normalizer: normalizers.Normalizer, template: str) -> Path:
    """A base model of letters, whose special tokens are looked for in normalised text."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((chr(letter), -1.0) for letter in range(32, 127))]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.normalizer = normalizer
    tokenizer.add_special_tokens([AddedToken("</s>", normalized=True, special=True)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")
    fast.chat_template = template
    fast.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "eos_token_id": 1}))
    return folder


@pytest.mark.parametrize("text", ["\uff1c/s\uff1e", "take 2 </s>", "</s>"])
def test_text_that_is_normalised_to_a_special_token_is_text(tmp_path: Path, text: str) -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    template += "{% if add_generation_prompt %}assistant: {% endif %}"
    tokenizer = ChatTokenizer(unigram(tmp_path, normalizers.NFKC(), template))
    ids = tokenizer.prompt([user(text)])
    assert ids.count(1) == 1
    assert tokenizer.tokenizer.convert_ids_to_tokens([ids[-12]]) == ["</s>"]


def test_an_unknown_token_is_not_the_end_of_a_turn(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    with pytest.raises(ConfigurationError, match="no server would stop there"):
        ChatTokenizer(unigram(tmp_path, normalizers.NFKC(), template))


@pytest.mark.parametrize(
    "template", ["{{ 1 // 0 }}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{{ range(10**9) | list }}"]
)
def test_a_template_that_fails_in_any_way_is_refused_in_one_sentence(tmp_path: Path, template: str) -> None:
    with pytest.raises(ConfigurationError, match="refuses the roles user, assistant"):
        ChatTokenizer(unigram(tmp_path, normalizers.NFKC(), template))


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["tokenizer.json", "generation_config.json"])
def test_damaged_files_are_refused_in_one_sentence(tiny_base: Path, tmp_path: Path, damage: str) -> None:
    folder = write_chat(tiny_base, tmp_path, "gemma")
    (folder / damage).write_text('{"eos_token_id": "</s>", "model": {"type": "None"}}')
    with pytest.raises(ConfigurationError):
        ChatTokenizer(folder)
