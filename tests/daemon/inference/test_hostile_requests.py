"""No request makes the server fail: what cannot be served is a 400 with OpenAI's body, at every field."""

import json
from typing import Any

import httpx
import pytest

from streams.runtime.http_errors import AnthropicError, AnthropicErrorReply, ErrorBody, ErrorReply

CHAT: dict[str, Any] = {
    "model": "base",
    "messages": [{"role": "user", "content": "You see a closed fridge."}],
    "max_tokens": 4,
    "temperature": 0,
}
COMPLETION: dict[str, Any] = {"model": "base", "prompt": "open the", "max_tokens": 4, "temperature": 0}
ENDPOINTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETION,
    "/v1/responses": {"model": "base", "input": "You see a fridge.", "max_output_tokens": 4, "temperature": 0},
    "/v1/messages": CHAT,
    "/v1/messages/count_tokens": {"model": "base", "messages": CHAT["messages"]},
    "/v1/load_lora_adapter": {"lora_name": "hostile", "lora_path": "/nowhere"},
    "/v1/unload_lora_adapter": {"lora_name": "hostile"},
}
FIELDS = {
    "/v1/chat/completions": (
        *("model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "n", "seed", "stop"),
        *("logprobs", "stream", "stream_options", "user", "prompt_logprobs", "prompt_logprobs_from_message"),
        *("add_generation_prompt", "return_token_ids", "logit_bias", "top_logprobs", "tools", "metadata", "store"),
    ),
    "/v1/completions": (
        "model",
        "prompt",
        "max_tokens",
        "temperature",
        "top_p",
        "n",
        "seed",
        "stop",
        "logprobs",
        "echo",
    ),
    "/v1/responses": (
        *("model", "input", "instructions", "previous_response_id", "max_output_tokens", "temperature", "tools"),
        *("tool_choice", "text", "reasoning", "stream", "stop", "structured_outputs", "include", "store", "metadata"),
    ),
    "/v1/messages": (
        *("model", "messages", "system", "max_tokens", "temperature", "top_k", "stop_sequences", "tools"),
        *("tool_choice", "stream", "thinking", "output_config", "output_format", "metadata"),
    ),
    "/v1/messages/count_tokens": ("messages", "system", "tools"),
    "/v1/load_lora_adapter": ("lora_name", "lora_path"),
    "/v1/unload_lora_adapter": ("lora_name",),
}
# As JSON, of which Python's own encoder would not write all.
HOSTILE = (
    *('"\\ud800"', '["\\udfff"]', '{"\\ud800": 1}', "NaN", "-Infinity", "1e999", "1e308", "-1e308", "1e-400"),
    *(
        "1" + "0" * 30,
        "-1" + "0" * 30,
        "1" + "0" * 4000,
        "1" + "0" * 5000,
        "18446744073709551615",
        "9223372036854775808",
    ),
    *("[" * 100_000 + "]" * 100_000, "[" * 99 + "]" * 99, '"nan"', '"inf"', '"\\u0000"', '""', "[]", "{}", "[null]"),
    *("true", "-1", "0", "0.5", '["a", 1]', '{"a": {"b": []}}', '[{"role": "user", "content": "\\u0000"}]'),
)


def send(http: httpx.Client, path: str, body: str | bytes) -> httpx.Response:
    return http.post(path, content=body, headers={"content-type": "application/json"})


def error_of(path: str, answer: httpx.Response) -> ErrorBody | AnthropicError:
    """The error of an answer, in the form that clients of the path read."""
    form = AnthropicErrorReply if path.startswith("/v1/messages") else ErrorReply
    return form.model_validate_json(answer.content).error


@pytest.mark.parametrize(("path", "field"), [(path, field) for path, fields in FIELDS.items() for field in fields])
def test_no_value_of_any_field_makes_the_server_fail(http: httpx.Client, path: str, field: str) -> None:
    for value in HOSTILE:
        if field == "n" and value == "true":
            continue
        rest = json.dumps({key: each for key, each in ENDPOINTS[path].items() if key != field})
        answer = send(http, path, f'{{"{field}": {value}, {rest[1:]}' if rest != "{}" else f'{{"{field}": {value}}}')
        assert answer.status_code in (200, 400, 404), (value[:40], answer.text[:300])
        if answer.is_error:
            error = error_of(path, answer)
            assert error.type in ("invalid_request_error", "not_found_error")
            assert len(error.message) <= 2000
    assert send(http, "/v1/chat/completions", json.dumps(CHAT)).status_code == 200


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{", b"\xff", b'"text"', '{"model": "ü"}'.encode("utf-16"), b'{"model": 1, "model": 2}'],
)
def test_no_body_makes_an_endpoint_fail(http: httpx.Client, path: str, body: bytes) -> None:
    answer = send(http, path, body)
    assert answer.status_code == 400
    assert error_of(path, answer).message


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/v1/nothing", 404),
        ("GET", "/", 404),
    ],
)
def test_a_wrong_path_or_method_has_openais_body(http: httpx.Client, method: str, path: str, status: int) -> None:
    answer = http.request(method, path)
    assert answer.status_code == status
    assert ErrorReply.model_validate_json(answer.content).error.type == "invalid_request_error"


IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}


@pytest.mark.parametrize(
    ("path", "fields", "told"),
    [
        ("/v1/chat/completions", {"messages": [IMAGE]}, "messages.0: image_url: only texts and calls"),
        ("/v1/chat/completions", {"messages": []}, "messages: List should have at least 1 item"),
        ("/v1/chat/completions", {"messages": "x"}, "messages: Input should be a valid list"),
        *(
            (
                "/v1/chat/completions",
                {"messages": [{"role": "user", "content": content}]},
                "messages.0: the content must",
            )
            for content in (5, {"type": "text"}, [5], [{"text": "x"}], [{"type": "text", "text": 5}])
        ),
        *(
            ("/v1/completions", {"prompt": prompt}, "prompt: send one text or one list of tokens")
            for prompt in (["a", "b"], [[1, 2]], "", [], [-1], [1.5], 5)
        ),
        ("/v1/completions", {"prompt": "a " * 600}, "raise the setting engine.max_length"),
    ],
)
def test_an_error_is_told_once_and_in_words_of_json(
    http: httpx.Client, path: str, fields: dict[str, Any], told: str
) -> None:
    answer = http.post(path, json=ENDPOINTS[path] | fields)
    message = answer.json()["error"]["message"]
    assert (answer.status_code, message.count(told)) == (400, 1), message
    assert not any(word in message for word in ("uple", "function-", "[T", "; messages", "; prompt")), message


@pytest.mark.parametrize("seed", [2**63 - 1, -(2**63), 0, -1])
def test_every_seed_of_64_bits_is_served_and_draws_the_same_again(http: httpx.Client, seed: int) -> None:
    drawn = [
        [choice["message"] for choice in http.post("/v1/chat/completions", json=request).json()["choices"]]
        for request in [CHAT | {"seed": seed, "n": 3, "temperature": 1}] * 2
    ]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1, 2**64, 10**100])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_seed_beyond_64_bits_is_refused(http: httpx.Client, path: str, seed: int) -> None:
    answer = http.post(path, json=ENDPOINTS[path] | {"seed": seed, "temperature": 1})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "seed")


@pytest.mark.parametrize("stop", ["\ud800", ["a", "\udc00"]])
def test_half_of_a_surrogate_pair_is_told_as_such(http: httpx.Client, stop: Any) -> None:
    answer = send(http, "/v1/chat/completions", json.dumps(CHAT | {"stop": stop}))
    assert answer.status_code == 400
    assert "surrogate" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize(
    "fields",
    [
        *({"temperature": value} for value in (1e-5 / 2, 1e-7, 1e-37, 1e-38, 1e-45, 1e-46, 1e-300, 5e-324)),
        *({"temperature": 1, "top_p": value} for value in (0, 1e-7, 1e-38, 1e-45, 1e-46, 1e-300, 5e-324)),
        *({"temperature": 1e-40, "top_p": 1e-50, "seed": seed} for seed in (1, 2)),
        {"temperature": 1e-4},
    ],
)
def test_a_tiny_temperature_or_top_p_is_greedy(http: httpx.Client, path: str, fields: dict[str, float]) -> None:
    request = ENDPOINTS[path] | {"max_tokens": 12}
    greedy, tiny = (http.post(path, json=request | each).json()["choices"] for each in ({"temperature": 0}, fields))
    assert tiny == greedy


@pytest.mark.parametrize("temperature", [2.0001, 3, 10, 1e30, 1e308, -1e-300])
def test_a_temperature_outside_the_apis_range_is_refused(http: httpx.Client, temperature: float) -> None:
    answer = http.post("/v1/chat/completions", json=CHAT | {"temperature": temperature})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "temperature")


def test_a_temperature_of_two_is_served(http: httpx.Client) -> None:
    assert http.post("/v1/chat/completions", json=CHAT | {"temperature": 2}).status_code == 200
