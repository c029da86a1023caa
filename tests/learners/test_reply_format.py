"""A reply is read as the chat template would write it back: reasoning, content, tool calls."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from learners.chat import ChatTokenizer
from learners.reply_format import ReplyFormat
from ratchet_client.messages import Message, ToolCall, assistant, call, tool_result, user
from streams.errors import ChatTemplateError
from tests.builders.trained import tool

TOOLS = (tool("search", "query"), tool("open", "place"))
ASKED = [user("When can I swim?")]
# How publishers have templates write calls, whose own templates are not here: a list, a list with ids, wrapped objects.
_CHAT = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% if m.tool_calls %}CALLS{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_OBJECT = '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
_COMMA = "{% if not loop.last %}, {% endif %}"
WRITTEN = {
    "list": f"<|tool_call|>[{{% for c in m.tool_calls %}}{_OBJECT}{_COMMA}{{% endfor %}}]<|/tool_call|>",
    "list_with_ids": '[TOOL_CALLS] [{% for c in m.tool_calls %}{"name": "{{ c.function.name }}", "arguments": '
    f'{{{{ c.function.arguments | tojson }}}}, "id": "{{{{ c.id }}}}"}}{_COMMA}{{% endfor %}}]',
    "wrapped": '{% for c in m.tool_calls %}<call>{"type": "function", "function": '
    f"{_OBJECT}}}</call>\n{{% endfor %}}",
    "other_order": '{% for c in m.tool_calls %}✿{"parameters": {{ c.function.arguments | tojson }}, "function": '
    '"{{ c.function.name }}"}✿{% endfor %}',
}
CALLING = ["smollm2", "qwen2_5", "qwen3", "qwen3_no_thinking", "llama3_2", *WRITTEN]


@pytest.fixture(scope="module")
def tokenizers(
    chats: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], ChatTokenizer]:
    @cache
    def made(template: str) -> ChatTokenizer:
        if template not in WRITTEN:
            return ChatTokenizer(chats(template))
        folder = tmp_path_factory.mktemp(template)
        shutil.copytree(chats("smollm2"), folder, dirs_exist_ok=True)
        (folder / "chat_template.jinja").write_text(_CHAT.replace("CALLS", WRITTEN[template]))
        return ChatTokenizer(folder)

    return made


def written(tokenizer: ChatTokenizer, message: Message) -> str:
    """The text of `message` as the template writes it behind its prompt, without the end of the turn."""
    _, text = tokenizer.template.turn(ASKED, message, TOOLS if message.calls else ())
    return text[
        : max(text.rfind(stop) for stop in tokenizer.tokenizer.convert_ids_to_tokens(list(tokenizer.stop_tokens)))
    ]


def said(message: Message) -> tuple[Any, ...]:
    """A message but for the ids of its calls."""
    functions = [(each.function.name, json.loads(each.function.arguments)) for each in message.calls if each.function]
    return message.content, message.reasoning_content, functions


WORDS = st.text(max_size=12) | st.sampled_from(
    ['"', "\\", "\n", "é盘🍽", "<tool_call>", "\n</tool_call>", "<|im_end|>", "</think>", "}", "]", "[TOOL_CALLS]", "✿"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
CALLS = st.builds(
    lambda name, arguments: call(name, json.dumps(arguments, ensure_ascii=False), "abcdefgh0"),
    st.from_regex(r"[a-zA-Z_.-]{1,12}", fullmatch=True),
    st.dictionaries(WORDS, VALUES, max_size=3),
)
CONTENTS = st.sampled_from(["I look.", 'He said: "{}"', "see [1] and {2}", "a < b\nc", "no <tool_cal", "1 ✿"])


@pytest.mark.parametrize("template", CALLING)
@settings(max_examples=20)
@given(content=st.none() | CONTENTS, calls=st.lists(CALLS, min_size=1, max_size=3))
def test_what_a_template_writes_of_a_message_is_read_as_that_message(
    tokenizers: Callable[[str], ChatTokenizer], template: str, content: str | None, calls: list[ToolCall]
) -> None:
    tokenizer = tokenizers(template)
    if template == "llama3_2":
        # It writes one call and nothing beside it.
        content, calls = None, calls[:1]
    message = assistant(content, *calls)
    assert said(tokenizer.reply_format.parse(written(tokenizer, message))) == said(message)


@pytest.mark.parametrize(("template", "thinks"), [("qwen3", True), ("deepseek_r1_distill", True), ("smollm2", False)])
def test_reasoning_is_told_from_content_where_the_template_writes_it(
    tokenizers: Callable[[str], ChatTokenizer], template: str, thinks: bool
) -> None:
    tokenizer = tokenizers(template)
    for reasoning in ("It may be closed.\n\nOr not <3.", None):
        text = written(tokenizer, assistant("At nine.", reasoning=reasoning))
        assert said(tokenizer.reply_format.parse(text)) == ("At nine.", reasoning if thinks else None, [])


def test_reasoning_that_was_cut_is_not_content(tokenizers: Callable[[str], ChatTokenizer]) -> None:
    thinks, prompted = tokenizers("qwen3").reply_format, tokenizers("deepseek_r1_distill").reply_format
    assert said(thinks.parse("<think>\nIt may be")) == (None, "It may be", [])
    assert said(prompted.parse("It may be")) == (None, "It may be", [])
    assert said(thinks.parse("It may be")) == ("It may be", None, [])


def test_reasoning_and_calls_of_one_reply(tokenizers: Callable[[str], ChatTokenizer]) -> None:
    message = assistant("I look.", call("search", '{"query": "</think> é"}'), reasoning="Hm.")
    tokenizer = tokenizers("qwen3")
    assert said(tokenizer.reply_format.parse(written(tokenizer, message))) == said(message)


@pytest.mark.slow
def test_harmony_is_read_but_for_its_calls(tokenizers: Callable[[str], ChatTokenizer]) -> None:
    tokenizer = tokenizers("gptoss")
    for reasoning in (None, "Hm."):
        message = assistant("At nine.", reasoning=reasoning)
        assert said(tokenizer.reply_format.parse(written(tokenizer, message))) == said(message)
    assert "does not write a tool call as a JSON object" in (tokenizer.reply_format.tools_refused or "")


VALID = '<tool_call>\n{"name": "search", "arguments": {"query": "x"}}\n</tool_call>'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<tool_call>",
        VALID.removesuffix("\n</tool_call>"),
        VALID + " I wait.",
        VALID + "\n<tool_call>\n{}\n</tool_call>",
        VALID.replace('"search"', "3"),
        VALID.replace('"search"', '""'),
        VALID.replace('"search"', r'"\ud800"'),
        VALID.replace('{"query": "x"}', '"x"'),
        VALID.replace('{"query": "x"}', "[]"),
        VALID.replace('"x"', "NaN"),
        VALID.replace('"x"', "'x'"),
        VALID.replace('"arguments"', '"parameters"'),
        VALID.replace('"name"', '"names"'),
        VALID.replace("}}", "}"),
        VALID.replace("}}", "},}"),
        VALID.replace("}}", '}, "more": 1}'),
        VALID.replace('"x"', "[" * 100_000 + "]" * 100_000),
        VALID.replace('"x"', '"a\nb"'),
        "<tool_call>\nsearch(query)\n</tool_call>",
        '{"name": "search", "arguments": {"query": "x"}}',
    ],
)
def test_an_almost_call_stays_content(tokenizers: Callable[[str], ChatTokenizer], text: str) -> None:
    assert said(tokenizers("smollm2").reply_format.parse(text)) == (text, None, [])


@pytest.mark.parametrize("template", CALLING)
def test_of_a_cut_reply_the_complete_calls_are_read_and_no_markup(
    tokenizers: Callable[[str], ChatTokenizer], template: str
) -> None:
    tokenizer = tokenizers(template)
    read = tokenizer.reply_format
    syntax = read.calls
    assert syntax is not None
    queries = ('a "b" \\ \n é', "c")
    calls = [call("search", json.dumps({"query": query, "n": -1.5}), f"abcdefgh{n}") for n, query in enumerate(queries)]
    made = assistant(None, *(calls if syntax.between is not None else calls[:1]))
    text = written(tokenizer, made)
    functions = said(read.parse(text))[2]
    assert len(functions) == len(made.calls)
    seen, start = set(), text.index(syntax.begin.strip() or "{")
    for before in ("", f"Let me see.{syntax.separator}") if syntax.begin else ("",):
        for end in range(start + 1, len(text) + 1):
            message = read.parse(text[:start] + before + text[start:end], cut=True)
            assert message.content == (before.removesuffix(syntax.separator) or None), (text[:end], message)
            assert said(message)[2] == functions[: len(message.calls)]
            seen.add(len(message.calls))
        assert len(message.calls) == len(functions)
    assert seen == set(range(len(functions) + 1))


@pytest.mark.parametrize(
    "text",
    [
        *("<tool_call> is what I write", "<tool_call>\n{} is", '<tool_call>\n{"query": "x', f"{VALID} and then"),
        *('<tool_call>\n{"name": 5, "argu', '<tool_call>\n{"name": "a\nb', f"{VALID}\n<tool_call>\n{{x", "I see."),
    ],
)
def test_a_cut_text_that_can_become_no_call_stays_content(
    tokenizers: Callable[[str], ChatTokenizer], text: str
) -> None:
    assert said(tokenizers("smollm2").reply_format.parse(text, cut=True)) == (text, None, [])


def test_a_call_after_almost_calls_is_a_call(tokenizers: Callable[[str], ChatTokenizer]) -> None:
    almost = "<tool_call> is what I write:<tool_call>\n{}\n</tool_call>"
    read = tokenizers("smollm2").reply_format.parse(f"{almost}\n{VALID}")
    assert said(read) == (almost, None, [("search", {"query": "x"})])


@pytest.mark.parametrize(
    "text", [VALID.replace("\n", ""), VALID.replace(": ", ":\n\t"), f"\n\n{VALID}\n", VALID.replace("\n", "  ")]
)
def test_white_space_around_a_call_is_the_models_choice(tokenizers: Callable[[str], ChatTokenizer], text: str) -> None:
    assert said(tokenizers("qwen2_5").reply_format.parse(text)) == (None, None, [("search", {"query": "x"})])


def test_arguments_are_the_models_own_words(tokenizers: Callable[[str], ChatTokenizer]) -> None:
    given = r'{"query":"\u00e9", "n": 1.0, "n": 1e3 }'
    (read,) = tokenizers("smollm2").reply_format.parse(VALID.replace('{"query": "x"}', given)).calls
    assert read.function is not None
    assert read.function.arguments == given


def test_calls_have_ids_of_their_own_unless_the_model_writes_them(tokenizers: Callable[[str], ChatTokenizer]) -> None:
    two = tokenizers("smollm2").reply_format.parse(f"{VALID}\n{VALID}").calls
    assert [each.id for each in two] == ["call_0", "call_1"]
    tokenizer = tokenizers("list_with_ids")
    (own,) = tokenizer.reply_format.parse(written(tokenizer, assistant(None, call("search", "{}", "q2w3e4r5t")))).calls
    assert own.id == "q2w3e4r5t"


def test_llama_may_write_its_tag_before_a_call(tokenizers: Callable[[str], ChatTokenizer]) -> None:
    read = tokenizers("llama3_2").reply_format
    text = '{"name": "search", "parameters": {"query": "x"}}'
    for reply in (text, f"<|python_tag|>{text}", f"\n{text}\n"):
        assert said(read.parse(reply)) == (None, None, [("search", {"query": "x"})])
    for reply in (f"I call {text}", f"{text} {text}", f"{text}; {text}", "{}"):
        assert said(read.parse(reply)) == (reply, None, [])


def test_without_tools_a_call_is_content(tokenizers: Callable[[str], ChatTokenizer]) -> None:
    for template, text in (("smollm2", VALID), ("llama3_2", '{"name": "a", "parameters": {}}')):
        read = tokenizers(template).reply_format
        assert said(read.parse(text, tools=False)) == (text, None, [])
        assert read.certain(text, tools=False) == ("", text)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("gemma3", r"refuses the roles user, assistant, tool: .* choose another base model"),
        ("phi3", "leaves out the tools that are offered: choose another"),
        ("cohere2", "leaves out the tools that are offered: choose another"),
        ("lfm2", "leaves out tool calls: choose another"),
    ],
)
def test_a_template_that_leaves_out_tools_refuses_them_in_one_sentence(
    tokenizers: Callable[[str], ChatTokenizer], template: str, reason: str
) -> None:
    tokenizer = tokenizers(template)
    called = [*ASKED, assistant(None, call("search", "{}", "a")), tool_result("Nothing.", "a")]
    refused = tokenizer.reply_format.tools_refused or ""
    for chat, tools in ((ASKED, TOOLS), (called, ())):
        with pytest.raises(ChatTemplateError, match=reason) as error:
            tokenizer.prompt(chat, tools)
        assert str(error.value) == refused
        assert "\n" not in refused
    assert tokenizer.prompt(ASKED)


PIECES = st.sampled_from(
    [
        *("<tool_call>", "<tool", "</tool_call>", "\n", " ", "{", "}", VALID, "I look.", "<think>", "<thi", "</think>"),
        *(
            '{"name": "search", "parameters": {}}',
            "<|python_tag|>",
            "[TOOL_CALLS] [",
            "✿",
            "<|channel|>",
            "<|END_RESPONSE|>",
        ),
        "<|channel|>final<|message|>",
    ]
)


@pytest.mark.parametrize(
    "template", ["smollm2", "qwen3", "deepseek_r1_distill", "llama3_2", "gptoss", "cohere2", "list"]
)
@settings(max_examples=25)
@given(pieces=st.lists(PIECES, max_size=8), tools=st.booleans())
@example(pieces=["<tool", "<tool_call>"], tools=True)
def test_what_is_certain_of_an_unfinished_reply_is_never_taken_back(
    tokenizers: Callable[[str], ChatTokenizer], template: str, pieces: list[str], tools: bool
) -> None:
    read: ReplyFormat = tokenizers(template).reply_format
    text = "".join(pieces)
    whole = read.parse(text, tools=tools)
    told = ("", "")
    for length in range(len(text) + 1):
        before, told = told, read.certain(text[:length], tools=tools)
        assert all(now.startswith(earlier) for now, earlier in zip(told, before, strict=True))
        assert (whole.reasoning_content or "").startswith(told[0])
        assert whole.text.startswith(told[1])


def test_ordinary_words_are_certain_at_once(tokenizers: Callable[[str], ChatTokenizer]) -> None:
    for template in ("smollm2", "llama3_2", "list"):
        assert tokenizers(template).reply_format.certain("At nine, or at < 10.") == ("", "At nine, or at < 10.")
    assert tokenizers("qwen3").reply_format.certain("<think>\nHm. So") == ("Hm. So", "")
    assert tokenizers("qwen3").reply_format.certain("<think>\nHm.\n</think>\n\nAt") == ("Hm.", "At")
