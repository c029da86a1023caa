"""Replies that have to be JSON are, of a model with random weights; what cannot be demanded is refused."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import httpx
import jsonschema
import pytest

BODY: dict[str, Any] = {
    "model": "base",
    "messages": [{"role": "user", "content": "Answer."}],
    "max_tokens": 200,
    "temperature": 1,
}
# Bounded, since a model with random weights seldom ends a text by itself.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "tags": {"type": "array", "items": {"enum": ["ä", 'b"c']}, "minItems": 1, "maxItems": 2},
        "next": {"anyOf": [{"$ref": "#/$defs/leaf"}, {"type": "null"}]},
    },
    "required": ["name", "tags", "next"],
    "additionalProperties": False,
    "$defs": {
        "leaf": {
            "type": "object",
            "properties": {"ok": {"type": "boolean"}},
            "required": ["ok"],
            "additionalProperties": False,
        }
    },
}


def described(schema: Any, strict: bool | None = True) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": strict}}


def ask(http: httpx.Client, path: str = "chat/completions", **fields: Any) -> httpx.Response:
    prompt = {key: value for key, value in BODY.items() if key != "messages"} | {"prompt": "Answer:"}
    return http.post(f"/v1/{path}", json=(BODY if path == "chat/completions" else prompt) | fields)


@pytest.mark.parametrize("strict", [True, False, None])
def test_every_reply_follows_its_schema(http: httpx.Client, strict: bool | None) -> None:
    answer = ask(http, response_format=described(SCHEMA, strict), n=8, seed=1)
    assert answer.status_code == 200, answer.text
    for choice in answer.json()["choices"]:
        assert choice["finish_reason"] == "stop"
        read = json.loads(choice["message"]["content"])
        jsonschema.validate(read, SCHEMA)
        # No white space but one space behind colons and commas.
        assert len(choice["message"]["content"]) >= len(json.dumps(read, ensure_ascii=False))


def test_completions_follow_schemas_and_choices_too(http: httpx.Client) -> None:
    text = ask(http, "completions", response_format=described(SCHEMA)).json()["choices"][0]["text"]
    jsonschema.validate(json.loads(text), SCHEMA)
    chosen = ask(http, "completions", structured_outputs={"choice": ["yes", "no way"]}, n=6).json()["choices"]
    assert {choice["text"] for choice in chosen} <= {"yes", "no way"}
    for schema in (SCHEMA, json.dumps(SCHEMA)):
        content = ask(http, structured_outputs={"json": schema}).json()["choices"][0]["message"]["content"]
        jsonschema.validate(json.loads(content), SCHEMA)


def test_any_object_may_be_demanded(http: httpx.Client) -> None:
    for fields in ({"response_format": {"type": "json_object"}}, {"structured_outputs": {"json_object": True}}):
        for choice in ask(http, **fields, n=4, max_tokens=40).json()["choices"]:
            text = choice["message"]["content"]
            assert text.startswith("{")
            assert "\n" not in text
            if choice["finish_reason"] == "stop":
                assert isinstance(json.loads(text), dict)


def test_a_reply_that_is_cut_ends_for_its_length(http: httpx.Client) -> None:
    (choice,) = ask(http, response_format=described(SCHEMA), max_tokens=4).json()["choices"]
    assert choice["finish_reason"] == "length"
    assert '{"name": "'.startswith(choice["message"]["content"][:10])


def test_a_schema_streams_and_keeps_its_log_probabilities(http: httpx.Client) -> None:
    asked: dict[str, Any] = {"response_format": described(SCHEMA), "seed": 4, "logprobs": True, "top_logprobs": 2}
    whole = ask(http, **asked).json()["choices"][0]
    lines = ask(http, **asked, stream=True).text.split("\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line and "[DONE]" not in line]
    choices = [chunk["choices"][0] for chunk in chunks]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == whole["message"]["content"]
    tokens = [token for choice in choices if choice["logprobs"] for token in choice["logprobs"]["content"]]
    told = whole["logprobs"]["content"]
    assert [token["token"] for token in tokens] == [token["token"] for token in told]
    assert [token["logprob"] for token in tokens] == pytest.approx([token["logprob"] for token in told], abs=1e-4)
    # They are the model's own, which knows of no schema: it would have drawn other tokens.
    assert any(token["logprob"] < token["top_logprobs"][0]["logprob"] for token in tokens)


def test_a_grammar_wins_over_parameters_that_would_break_it(http: httpx.Client) -> None:
    for fields in ({"min_tokens": 150}, {"ignore_eos": True}, {"allowed_token_ids": [7]}, {"bad_words": ['{"', "{"]}):
        for choice in ask(http, response_format=described(SCHEMA), n=2, **fields).json()["choices"]:
            assert choice["finish_reason"] == "stop"
            jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)


def test_replies_with_and_without_a_schema_go_through_one_batch(http: httpx.Client) -> None:
    plain: dict[str, Any] = {"temperature": 0, "max_tokens": 60}
    alone = ask(http, **plain).json()["choices"][0]["message"]
    with ThreadPoolExecutor(8) as pool:
        free = [pool.submit(lambda: ask(http, **plain)) for _ in range(4)]
        held = [pool.submit(ask, http, response_format=described(SCHEMA), seed=seed) for seed in range(4)]
        for each in held:
            jsonschema.validate(json.loads(each.result().json()["choices"][0]["message"]["content"]), SCHEMA)
        assert all(each.result().json()["choices"][0]["message"] == alone for each in free)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "foo"}, "Invalid type"),
        ({"not": {"type": "string"}}, "Unimplemented keys"),
        ({"$ref": "#/nothing"}, "does not exist"),
        ({"$ref": "https://example.org/schema"}, "example.org"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
        ({"enum": []}, "Unsatisfiable"),
        ({"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(5000)}}, "too large"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "Unsatisfiable"),
    ],
)
def test_a_schema_that_no_reply_can_be_held_to_is_refused_with_the_reason(
    http: httpx.Client, schema: dict[str, Any], words: str
) -> None:
    parameters = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    tool = {"type": "function", "function": {"name": "f", "strict": True, "parameters": parameters}}
    for fields, field in (
        ({"response_format": described(schema)}, "response_format"),
        ({"tools": [tool], "tool_choice": "required"}, "tools.0"),
    ):
        if field == "tools.0" and words == "too large":
            continue  # its prompt is too long before
        answer = ask(http, **fields)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "invalid_grammar"), answer.text
        assert words in error["message"] or field == "tools.0"
        assert error["message"].startswith(field)
        assert len(error["message"]) < 700


def test_keywords_that_are_not_supported_are_ignored_unless_strict(http: httpx.Client) -> None:
    schema = {"type": "boolean", "not": {"const": True}}
    assert ask(http, response_format=described(schema, strict=True)).status_code == 400
    content = ask(http, response_format=described(schema, strict=False)).json()["choices"][0]["message"]["content"]
    assert content in ("true", "false")


@pytest.mark.parametrize(
    "value",
    [
        *({"type": "xml"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": []}, "json", 1, [], {}),
        *({"type": "json_schema", "json_schema": {"schema": {}, "regex": 1}}, {"type": "structural_tag"}),
        *({"type": "json_object", "schema": {}}, {"type": "json_schema", "json_schema": {"strict": "perhaps"}}),
    ],
)
def test_a_format_that_is_not_served_is_refused_by_its_name(http: httpx.Client, value: Any) -> None:
    answer = ask(http, response_format=value)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "response_format"), answer.text


@pytest.mark.parametrize(
    "value",
    [
        {"regex": "a"},
        {"grammar": "a"},
        {"choice": []},
        {"choice": [1]},
        {"json": "{"},
        {"json": {}, "choice": ["a"]},
        1,
    ],
)
def test_an_output_that_is_not_served_is_refused_by_its_name(http: httpx.Client, value: Any) -> None:
    answer = ask(http, structured_outputs=value)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "structured_outputs")
    both = ask(http, structured_outputs={"json_object": True}, response_format={"type": "json_object"})
    assert (both.status_code, both.json()["error"]["param"]) == (400, "structured_outputs")


def test_hostile_schemas_leave_the_server_alive(server_with: Callable[..., AbstractContextManager[str]]) -> None:
    nested: Any = {"type": "boolean"}
    for _ in range(40):
        nested = {"type": "array", "items": nested, "minItems": 1, "maxItems": 1}
    hostile = [
        {"type": "string", "pattern": "(a{1,1000}){1,1000}"},
        {"type": "string", "pattern": "^(a|a?)+$(b*)*c{3,900}"},
        {"type": "string", "maxLength": 10**9, "minLength": 10**8},
        {"type": "array", "minItems": 10**6, "items": {"type": "string"}},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"enum": ["x" * 100 + str(n) for n in range(2000)]},
        {"x-guidance": {"lenient": True, "whitespace_pattern": "("}, "type": "boolean"},
        nested,
    ]
    with server_with(max_length=256) as address, httpx.Client(base_url=address, timeout=60) as http:
        for schema in hostile:
            answer = ask(http, response_format=described(schema), max_tokens=20)
            assert answer.status_code in (200, 400), answer.text
        assert ask(http, max_tokens=4).status_code == 200
