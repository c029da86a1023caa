"""The effort of reasoning is told to the chat template, as vLLM does; a template that knows none is not changed."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from learners.chat import ChatTokenizer
from ratchet_client.messages import assistant, user
from tests.builders.base_models import write_base, write_chat
from tests.daemon.inference.conftest import run_server

GO = (user("Go."),)


def text(chat: ChatTokenizer, effort: str | None) -> str:
    asked = chat if effort is None else chat.with_effort(effort)
    return asked.template.render(GO, prompt=True)


@pytest.mark.nightly
def test_a_template_gets_the_effort_under_the_names_that_it_knows(tiny_base: Path, tmp_path: Path) -> None:
    oss = ChatTokenizer(write_chat(tiny_base, tmp_path / "oss", "gptoss"))
    assert "Reasoning: medium" in text(oss, None)
    assert "Reasoning: high" in text(oss, "high")
    qwen = ChatTokenizer(write_chat(tiny_base, tmp_path / "qwen", "qwen3"))
    assert text(qwen, "none") == text(qwen, None) + "<think>\n\n</think>\n\n"
    assert text(qwen, "low") == text(qwen, None)
    assert qwen.with_effort("none") is qwen.with_effort("none")
    assert qwen.reply_format.thoughts is not None
    # What was not to be reasoned is read as what it is: a content.
    assert qwen.with_effort("none").reply_format.parse("Twelve.") == assistant("Twelve.")
    plain = ChatTokenizer(tiny_base)
    assert plain.with_effort("high") is plain


@pytest.mark.slow
@pytest.mark.parametrize("path", ["chat/completions", "responses"])
def test_a_model_that_reasons_is_asked_with_an_effort(path: str, tiny_base: Path, tmp_path: Path) -> None:
    def body(effort: str | None) -> dict[str, Any]:
        if path == "responses":
            return {"model": "base", "input": "Go.", "max_output_tokens": 1, "reasoning": {"effort": effort}}
        messages = [{"role": "user", "content": "Go."}]
        return {"model": "base", "messages": messages, "max_tokens": 1, "reasoning_effort": effort}

    with run_server(write_base(tiny_base, tmp_path / "reasons", "qwen3")) as address:
        said = {
            effort: httpx.post(f"{address}/v1/{path}", json=body(effort), timeout=60)
            for effort in (None, "none", "minimal", "high", "max", "wild")
        }
    assert {effort: answer.status_code for effort, answer in said.items() if effort != "wild"} == dict.fromkeys(
        (None, "none", "minimal", "high", "max"), 200
    )
    assert said["wild"].status_code == 400
    assert "effort" in said["wild"].json()["error"]["param"]
    count = "input_tokens" if path == "responses" else "prompt_tokens"
    lengths = {effort: answer.json()["usage"][count] for effort, answer in said.items() if answer.is_success}
    assert lengths["none"] > lengths[None] == lengths["high"]
    if path == "responses":
        assert said["high"].json()["reasoning"]["effort"] == "high"
