"""The base model is what it is said to be, or there is none."""

import json
import shutil
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from learners.base_model import base_digest, resolve_base
from learners.chat import ChatTokenizer, load_tokenizer
from learners.chat_template import ChatTemplate
from learners.settings import EMBEDDED
from learners.special_tokens import SpecialTokens
from ratchet_client.errors import ConfigurationError
from ratchet_client.messages import Message, assistant, call, tool_result, user
from tests.builders.base_models import TEMPLATES
from tests.builders.trained import tool


def test_a_local_folder_is_taken_as_it_is(tiny_base: Path, tmp_path: Path) -> None:
    assert resolve_base(str(tiny_base), tmp_path) == tiny_base.resolve()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_a_model_is_refused_with_the_files_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"lacks config\.json, tokenizer_config\.json"):
        resolve_base(str(tmp_path / "nowhere"), tmp_path)


def test_the_digest_is_that_of_weights_configuration_and_tokenizer(tiny_base: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_bytes((tiny_base / name).read_bytes())
    assert base_digest(tmp_path) == base_digest(tiny_base)
    (tmp_path / "README.md").write_text("says nothing about the model")
    assert base_digest(tmp_path) == base_digest(tiny_base)
    with (tmp_path / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    assert base_digest(tmp_path) != base_digest(tiny_base)


# As its publisher ships it.
OWN_TEMPLATE = """{% for message in messages %}\
{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""
CHATS = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["system", "user", "assistant"]),
        st.text(max_size=20) | st.sampled_from(["<tool_call>", "\n", " a ", "{{ x }}", "<|im_end|>"]),
    ),
    min_size=1,
    max_size=6,
)


@given(chat=CHATS, generation=st.booleans())
def test_the_embedded_models_template_renders_a_chat_without_tools_as_its_own_does(
    tiny_base: Path, chat: list[dict[str, str]], generation: bool
) -> None:
    tokenizer = embedded_tokenizer(tiny_base)
    ours, own = (
        tokenizer.apply_chat_template(
            chat, tools=None, chat_template=template, add_generation_prompt=generation, tokenize=False
        )
        for template in (None, OWN_TEMPLATE)
    )
    assert ours == own


@cache
def embedded_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(folder)


def test_the_embedded_models_template_writes_tools_as_qwen_does(tiny_base: Path) -> None:
    tools = (tool("search", "query"),)
    chat = [
        Message(role="system", content="Help."),
        user("Is it open?"),
        assistant("I look.", call("search", '{"query": "é"}'), call("search", "{}")),
        tool_result("Yes."),
        tool_result("No."),
        assistant(None, call("search", "{}")),
        tool_result("Yes."),
        user("Thanks."),
    ]
    ours = ChatTokenizer(tiny_base).template
    tokenizer = load_tokenizer(tiny_base)
    tokenizer.chat_template = (TEMPLATES / "qwen2_5.jinja").read_text()
    theirs = ChatTemplate(tokenizer, SpecialTokens(tokenizer, "qwen"), "qwen")
    for count in (2, 3, 5, 6, 8):
        assert ours.render(chat[:count], tools, prompt=True) == theirs.render(chat[:count], tools, prompt=True)
    name = "SmolLM, trained by Hugging Face\n\n# Tools"
    assert name in ours.render([user("Go.")], tools, prompt=True)


def test_a_folder_of_an_earlier_version_gets_the_template_of_this_one(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base" / EMBEDDED
    shutil.copytree(tiny_base, folder)
    (folder / "converted.json").write_text(json.dumps({"digest": base_digest(folder)}))
    (folder / "chat_template.jinja").write_text(OWN_TEMPLATE)
    genuine = base_digest(folder)
    assert resolve_base(EMBEDDED, tmp_path) == folder
    assert ChatTokenizer(folder).reply_format.tools_refused is None
    # Adapters name the base model by this digest: they stay its own.
    assert base_digest(folder) == genuine


@pytest.mark.nightly
def test_the_embedded_model_is_converted_once_and_again_when_its_copy_is_damaged(
    embedded_home: Path, tmp_path: Path
) -> None:
    shutil.copytree(embedded_home, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "base" / EMBEDDED
    genuine, weights = base_digest(folder), folder / "model.safetensors"
    assert AutoConfig.from_pretrained(folder).num_hidden_layers == 30
    assert AutoTokenizer.from_pretrained(folder).chat_template
    assert len(load_file(weights)) > 200
    written = weights.stat().st_mtime_ns
    assert resolve_base(EMBEDDED, tmp_path) == folder
    assert weights.stat().st_mtime_ns == written
    with weights.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"damage")
    assert base_digest(folder) != genuine
    assert base_digest(resolve_base(EMBEDDED, tmp_path)) == genuine
    assert [path.name for path in folder.parent.iterdir()] == [EMBEDDED]
