"""Chats with tools have the tokens of serving: calls, results, tools and what else a message may hold."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from learners.chat import ChatTokenizer, Turn
from ratchet_client.messages import Message, ToolDefinition, assistant, call, tool_result, user
from streams.errors import ChatTemplateError
from tests.builders.base_models import FAMILIES
from tests.builders.trained import tool

TOOLS = (tool("search", "query"), tool("open", "place"))
CALLS = (call("search", '{"query": "é \\"x\\"", "n": [1.0, null]}', "abcdefgh0"), call("open", "{}", "abcdefgh1"))
WITH_TOOLS = [
    Message(role="system", content="Help."),
    user("Is it open?"),
    assistant("I look.", *CALLS),
    tool_result("Yes.", "abcdefgh0"),
    tool_result('{"a": 1}', "abcdefgh1"),
    assistant("It is."),
    user("Thanks."),
    user("And now?"),
]
CALLING = ["smollm2", "qwen2_5", "qwen3", "qwen3_no_thinking"]


def words(tokenizer: ChatTokenizer, turn: Turn) -> str:
    return str(tokenizer.tokenizer.decode(list(turn.ids[slice(*turn.written)])))


def as_transformers_has_it(message: Message) -> dict[str, Any]:
    given = message.model_dump(exclude_none=True)
    for each in given.get("tool_calls", ()):
        each["function"]["arguments"] = json.loads(each["function"]["arguments"])
    return given


@pytest.mark.slow
@pytest.mark.parametrize("template", CALLING)
def test_a_chat_with_tools_is_served_as_transformers_renders_it(
    servers: Callable[[str], PreTrainedTokenizerFast], tokenizers: Callable[[str], ChatTokenizer], template: str
) -> None:
    for count in (2, 5, 8):
        chat = [as_transformers_has_it(message) for message in WITH_TOOLS[:count]]
        served = servers(template).apply_chat_template(
            chat, tools=list(TOOLS), add_generation_prompt=True, tokenize=True, return_dict=False
        )
        assert tokenizers(template).prompt(WITH_TOOLS[:count], TOOLS) == served


@pytest.mark.parametrize("template", [*CALLING, "llama3_2", "gptoss"])
def test_special_tokens_in_calls_results_and_tools_are_text(
    tokenizers: Callable[[str], ChatTokenizer], template: str
) -> None:
    tokenizer = tokenizers(template)
    special = {number for number, token in tokenizer.tokenizer.added_tokens_decoder.items() if token.special}

    def skeleton(mark: str) -> list[int]:
        escaped = mark.replace("<", r"\u003c")
        called = call(f"open{mark}", f'{{"{escaped}": "{mark}", "b": ["{escaped}"]}}', f"abcdefgh0{mark}")
        chat = [user("Go."), assistant(None, called), tool_result(mark, called.id)]
        described = tool(f"open{mark}", f"place{mark}")
        return [token for token in tokenizer.prompt(chat, (described,)) if token in special]

    for hostile in FAMILIES[template].special:
        assert skeleton(hostile) == skeleton("x")


def test_arguments_are_objects_for_the_template_where_they_are_json(
    tokenizers: Callable[[str], ChatTokenizer],
) -> None:
    def shown(arguments: str) -> str:
        chat = [user("Go."), assistant(None, call("open", arguments))]
        return (
            tokenizers("smollm2").template.render(chat, prompt=False).partition('"arguments": ')[2].partition("}\n")[0]
        )

    assert shown('{"a":1,\n"b":"\\u00e9"}') == '{"a": 1, "b": "é"}'
    assert shown("") == "{}"
    assert shown("not JSON") == '"not JSON"'
    # Half a surrogate pair is no character that could be tokenised.
    assert shown(r'{"a": "\ud800"}') == json.dumps(r'{"a": "\ud800"}')


def test_tools_are_given_to_the_template_as_vllm_gives_them(tokenizers: Callable[[str], ChatTokenizer]) -> None:
    template = tokenizers("smollm2").template
    bare: ToolDefinition = {"function": {"strict": True, "parameters": {}, "name": "open"}, "type": "function"}
    rendered = template.render([user("Go.")], (bare,), prompt=True)
    function = '{"name": "open", "description": null, "parameters": {}, "strict": true}'
    assert f'<tools>\n{{"type": "function", "function": {function}}}\n</tools>' in rendered


def test_tools_in_another_apis_form_are_functions_and_a_tool_that_is_none_is_refused(
    tokenizers: Callable[[str], ChatTokenizer],
) -> None:
    template = tokenizers("smollm2").template
    nested: ToolDefinition = {"type": "function", "function": {"name": "open", "parameters": {}}}
    others: tuple[ToolDefinition, ...] = (
        {"type": "function", "name": "open", "parameters": {}},
        {"name": "open", "input_schema": {}},
    )
    for flat in others:
        as_nested = template.render([user("Go.")], (nested,), prompt=True)
        assert template.render([user("Go.")], (flat,), prompt=True) == as_nested
    with pytest.raises(ChatTemplateError, match="a tool is not a function"):
        template.render([user("Go.")], ({"type": "web_search"},), prompt=True)


def test_developers_speak_as_the_system_where_the_template_does_not_know_them(
    tokenizers: Callable[[str], ChatTokenizer],
) -> None:
    chat = [Message(role="developer", content="Be brief."), user("Go.")]
    as_system = [Message(role="system", content="Be brief."), user("Go.")]
    for template in ("smollm2", "qwen2_5", "qwen3", "llama3_2"):
        assert tokenizers(template).prompt(chat) == tokenizers(template).prompt(as_system)
    assert "<|start|>developer<|message|># Instructions\n\nBe brief." in tokenizers("gptoss").template.render(
        chat, prompt=True
    )


@pytest.mark.slow
def test_parts_of_a_content_are_lines_and_no_content_is_an_empty_one(
    tokenizers: Callable[[str], ChatTokenizer],
) -> None:
    parts = [{"type": "text", "text": "One."}, {"type": "text", "text": "Two.", "annotations": []}]
    for template in ("smollm2", "gemma3"):
        prompt = tokenizers(template).prompt
        assert prompt([Message.model_validate({"role": "user", "content": parts})]) == prompt([user("One.\nTwo.")])
    nothing = [user("Go."), assistant(None, *CALLS)]
    assert tokenizers("qwen3").prompt(nothing) == tokenizers("qwen3").prompt([nothing[0], assistant("", *CALLS)])


def test_fields_that_no_template_is_made_for_change_nothing(tokenizers: Callable[[str], ChatTokenizer]) -> None:
    fields = {"role": "user", "content": "Go.", "annotations": ["x"], "thinking": "y", "prefix": True, "tool_calls": []}
    assert tokenizers("qwen3").prompt([Message.model_validate(fields)]) == tokenizers("qwen3").prompt([user("Go.")])


def test_a_message_that_is_not_text_is_refused(tokenizers: Callable[[str], ChatTokenizer]) -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]}
    with pytest.raises(ChatTemplateError, match="a part that is not text, such as an image"):
        tokenizers("smollm2").prompt([Message.model_validate(image)])


@pytest.mark.parametrize("template", [*CALLING, "llama3_2", "gptoss"])
def test_a_call_is_trained_up_to_a_token_that_a_server_stops_at(
    tokenizers: Callable[[str], ChatTokenizer], template: str
) -> None:
    tokenizer = tokenizers(template)
    turn = tokenizer.reply([user("Go.")], assistant(None, CALLS[0]), TOOLS)
    assert list(turn.ids[: turn.written[0]]) == tokenizer.prompt([user("Go.")], TOOLS)
    assert turn.ids[-1] in tokenizer.configured_stops
    assert '"query": "é' in words(tokenizer, turn)


def test_reasoning_is_left_out_where_the_prompt_has_closed_it(tokenizers: Callable[[str], ChatTokenizer]) -> None:
    tokenizer = tokenizers("qwen3_no_thinking")
    turn = tokenizer.reply([user("Go.")], assistant("look", reasoning="Hm."))
    assert list(turn.ids[slice(*turn.written)]) == tokenizer.encode("look<|im_end|>")


@pytest.mark.parametrize(
    ("template", "reason"), [("gptoss", "all tool calls of a message but one"), ("llama3_2", "single")]
)
def test_parallel_calls_are_refused_where_the_template_writes_one(
    tokenizers: Callable[[str], ChatTokenizer], template: str, reason: str
) -> None:
    with pytest.raises(ChatTemplateError, match=reason) as error:
        tokenizers(template).reply([user("Go.")], assistant(None, *CALLS), TOOLS)
    assert "\n" not in str(error.value)
    tokenizers(template).reply([user("Go.")], assistant(None, CALLS[0]), TOOLS)
