"""The table of request parameters in docs/inference.md is complete and true: each of them is sent."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import openai.types.chat.completion_create_params as openai_chat
import openai.types.completion_create_params as openai_completions
import pytest

from daemon.inference.requests import ChatRequest, CompletionRequest
from ratchet_client.settings import FrozenModel

DOCS = Path(__file__).parents[3] / "docs" / "inference.md"
PATHS = {"chat": "chat/completions", "completions": "completions"}
BODIES: dict[str, dict[str, Any]] = {
    "chat": {"model": "base", "messages": [{"role": "user", "content": "Go."}], "max_tokens": 3, "temperature": 0},
    "completions": {"model": "base", "prompt": "Go.", "max_tokens": 3, "temperature": 0},
}
REQUESTS: dict[str, type[FrozenModel]] = {"chat": ChatRequest, "completions": CompletionRequest}
# Of vLLM's `ChatCompletionRequest` and `CompletionRequest` those that OpenAI has not.
VLLM_BOTH = (
    *("use_beam_search", "top_k", "min_p", "repetition_penalty", "watermarking", "length_penalty", "stop_token_ids"),
    *("include_stop_str_in_output", "ignore_eos", "min_tokens", "skip_special_tokens", "spaces_between_special_tokens"),
    *("truncate_prompt_tokens", "truncation_side", "prompt_logprobs", "logprob_token_ids", "allowed_token_ids"),
    *("bad_words", "add_special_tokens", "structured_outputs", "priority", "request_id", "session_id"),
    *("return_tokens_as_token_ids", "return_token_ids", "routed_experts_prompt_start", "return_token_offsets"),
    *("return_mm_kwargs", "cache_salt", "kv_transfer_params", "ec_transfer_params", "vllm_xargs"),
    *("repetition_detection", "stream_interval", "thinking_token_budget", "stream"),
)
VLLM = {
    "chat": (
        *("include_reasoning", "echo", "add_generation_prompt", "continue_final_message", "documents"),
        *("chat_template", "chat_template_kwargs", "media_io_kwargs", "mm_processor_kwargs", "return_prompt_text"),
    ),
    "completions": ("prompt_embeds", "response_format"),
}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
# Values that mean something, of those that are served.
SERVED: dict[str, Any] = {
    "model": "base",
    "messages": [{"role": "user", "content": "On."}],
    "prompt": [5, 6],
    "n": 2,
    "seed": 1,
    "temperature": 0.5,
    "top_p": 0.5,
    "stop": ["x"],
    "frequency_penalty": 1,
    "presence_penalty": 1,
    "logit_bias": {"5": 1},
    "top_k": 5,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "min_tokens": 1,
    "ignore_eos": True,
    "stop_token_ids": [5],
    "include_stop_str_in_output": True,
    "skip_special_tokens": False,
    "bad_words": ["x"],
    "allowed_token_ids": [5, 6],
    "return_tokens_as_token_ids": True,
    "response_format": {"type": "json_object"},
    "structured_outputs": {"choice": ["a"]},
    "max_tokens": 2,
    "max_completion_tokens": 2,
    "logprobs": {"chat": True, "completions": 2},
    "stream": True,
    "stream_options": {"include_usage": True},
    "tools": [TOOL],
    "tool_choice": "none",
    "parallel_tool_calls": False,
    "reasoning_effort": "high",
    "top_logprobs": 2,
    "add_generation_prompt": False,
    "include_reasoning": False,
    "prompt_logprobs": 0,
    "return_token_ids": True,
    "prompt_logprobs_from_message": 0,
    "echo": True,
}
WITH: dict[str, dict[str, Any]] = {
    "top_logprobs": {"logprobs": True},
    "echo": {"max_tokens": 0},
    "tool_choice": {"tools": [TOOL]},
    "parallel_tool_calls": {"tools": [TOOL]},
}
ACCEPTED: dict[str, Any] = {
    "metadata": {"a": "b"},
    "store": True,
    "prompt_cache_options": {"a": 1},
    "stream_interval": 5,
    "stream_options": {"include_usage": True},
    "return_token_offsets": True,
    "return_mm_kwargs": False,
    "prediction": {"type": "content", "content": "go"},
}


def documented() -> dict[str, dict[str, tuple[str, Any]]]:
    """By endpoint and parameter what the table says of it, and its neutral value where it is refused."""
    table = DOCS.read_text().split("## Request parameters")[1].split("\n## ")[0]
    found: dict[str, dict[str, tuple[str, Any]]] = {"chat": {}, "completions": {}}
    for row in re.findall(r"^\| (`.*)$", table, re.MULTILINE):
        names, *cells = (cell.strip() for cell in row.split("|"))
        for endpoint, cell in zip(found, cells, strict=False):
            said, _, values = cell.partition(" (")
            neutral = json.loads(f"[{values.removesuffix(')')}]")
            for index, name in enumerate(re.findall(r"`(\w+)`", names)):
                if said:
                    assert name not in found[endpoint], name
                    found[endpoint][name] = (said, neutral[index % len(neutral)] if neutral else None)
    return found


TABLE = documented()
ROWS = [(endpoint, name) for endpoint, names in TABLE.items() for name in names]


@pytest.mark.parametrize("endpoint", PATHS)
def test_the_table_has_every_parameter_of_openai_of_vllm_and_of_ours(endpoint: str) -> None:
    own = {
        "chat": openai_chat.CompletionCreateParamsBase.__annotations__,
        "completions": openai_completions.CompletionCreateParamsBase.__annotations__,
    }
    theirs = {*own[endpoint], *VLLM_BOTH, *VLLM[endpoint]}
    assert theirs - TABLE[endpoint].keys() == set()
    assert TABLE[endpoint].keys() == REQUESTS[endpoint].model_fields.keys()


def send(http: httpx.Client, endpoint: str, **fields: Any) -> httpx.Response:
    return http.post(f"/v1/{PATHS[endpoint]}", json=BODIES[endpoint] | fields)


@pytest.mark.parametrize(("endpoint", "name"), ROWS)
def test_each_parameter_does_what_the_table_says(http: httpx.Client, endpoint: str, name: str) -> None:
    said, neutral = TABLE[endpoint][name]
    if said == "served":
        value = SERVED[name]
        value = value[endpoint] if isinstance(value, dict) and endpoint in value else value
        answer = send(http, endpoint, **WITH.get(name, {}), **{name: value})
        assert answer.status_code == 200, answer.text
        return
    plain = send(http, endpoint).json()["choices"]
    if said == "accepted":
        answer = send(http, endpoint, **{name: ACCEPTED.get(name, "something")})
        assert answer.json()["choices"] == plain, answer.text
        return
    assert said == "refused"
    answer = send(http, endpoint, **{name: neutral})
    assert answer.json().get("choices") == plain, answer.text
    refused = send(http, endpoint, **{name: "something else"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, name)


@pytest.mark.parametrize("endpoint", PATHS)
def test_one_answer_names_all_that_is_refused(http: httpx.Client, endpoint: str) -> None:
    refused = {name: "something else" for name, (said, _) in TABLE[endpoint].items() if said == "refused"}
    message = send(http, endpoint, **refused).json()["error"]["message"]
    assert [name for name in refused if name not in message] == []
