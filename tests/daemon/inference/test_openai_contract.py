"""OpenAI's clients are served: neutral parameters are taken, replies are complete by the SDK's own models."""

import json
from typing import Any

import httpx
import openai
import pytest
from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

CHAT = [{"role": "system", "content": "You play a game."}, {"role": "user", "content": "You see a closed fridge."}]
NULLABLE = (
    *("frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs", "max_tokens", "n", "seed"),
    *("max_completion_tokens", "stop", "stream", "stream_options", "temperature", "top_p", "tools", "tool_choice"),
    *("parallel_tool_calls", "functions", "function_call", "response_format", "user", "metadata", "store", "audio"),
    *("service_tier", "reasoning_effort", "verbosity", "modalities", "prediction", "web_search_options"),
    *("safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "moderation"),
)
NEUTRAL: tuple[tuple[str, Any], ...] = (
    *(("frequency_penalty", value) for value in (0, 0.0, -0.0)),
    *(("presence_penalty", 0), ("logit_bias", {}), ("n", 1), ("top_p", 1), ("top_logprobs", 0), ("stop", [])),
    *(("tools", []), ("functions", []), ("tool_choice", "none"), ("tool_choice", "auto"), ("function_call", "none")),
    *(("parallel_tool_calls", True), ("parallel_tool_calls", False), ("response_format", {"type": "text"})),
    *(("stream_options", {}), ("stream_options", {"include_usage": True}), ("stream_options", {"include_usage": None})),
    *(("store", True), ("store", False), ("metadata", {"a": "b"}), ("metadata", {}), ("user", "anna")),
    *(
        ("service_tier", "auto"),
        ("reasoning_effort", "none"),
        ("reasoning_effort", "high"),
        ("modalities", ["text"]),
        ("verbosity", "medium"),
    ),
    *(("top_k", -1), ("top_k", 0), ("min_p", 0), ("repetition_penalty", 1.0), ("skip_special_tokens", True)),
    *(("ignore_eos", False), ("min_tokens", 0), ("stop_token_ids", []), ("chat_template_kwargs", {})),
    *(("prediction", {"type": "content", "content": "go"}), ("max_completion_tokens", 8)),
)
REFUSED: dict[str, Any] = {
    "frequency_penalty": 2.1,
    "presence_penalty": "much",
    "logit_bias": {"1": 10**30},
    "top_logprobs": 10**30,
    "tools": [{"type": "web_search"}],
    "tool_choice": "perhaps",
    "functions": [{"name": "f"}],
    "function_call": {"name": "f"},
    "response_format": {"type": "xml"},
    "structured_outputs": {"grammar": "root ::= 1"},
    "reasoning_effort": "wild",
    "verbosity": "low",
    "modalities": ["text", "audio"],
    "audio": {"voice": "alloy", "format": "wav"},
    "best_of": 2,
    "top_k": -2,
    "min_p": 1.1,
    "repetition_penalty": 0,
    "min_tokens": 9,
    "ignore_eos": "perhaps",
    "frequency_penalti": 0,
}


def ask(http: httpx.Client, path: str = "chat/completions", **fields: Any) -> httpx.Response:
    prompt = {"messages": CHAT} if path == "chat/completions" else {"prompt": "open the"}
    return http.post(f"/v1/{path}", json={"model": "base", "max_tokens": 8, "temperature": 0, **prompt, **fields})


def chunks(http: httpx.Client, **fields: Any) -> list[dict[str, Any]]:
    answer = ask(http, stream=True, **fields)
    assert answer.status_code == 200, answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.nightly
@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_null_is_the_same_as_leaving_a_parameter_out(http: httpx.Client, path: str) -> None:
    plain = ask(http, path).json()["choices"]
    for name in NULLABLE:
        answer = ask(http, path, **{name: None} | ({} if name != "max_tokens" else {"max_completion_tokens": None}))
        assert answer.status_code == 200, (name, answer.text)
        if name not in ("max_tokens", "temperature"):
            assert answer.json()["choices"] == plain, name
    assert ask(http, path, **dict.fromkeys(NULLABLE)).status_code == 200


@pytest.mark.parametrize(("name", "value"), NEUTRAL)
def test_a_value_that_changes_nothing_is_taken(http: httpx.Client, name: str, value: Any) -> None:
    answer = ask(http, **{name: value})
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"] == ask(http).json()["choices"]


def test_what_would_change_the_reply_is_refused_in_one_answer_that_names_all_of_it(http: httpx.Client) -> None:
    answer = ask(http, **REFUSED, temperature=3)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (400, "invalid_request_error", "invalid_request")
    assert [name for name in (*REFUSED, "temperature") if name not in error["message"]] == []
    assert "leave it out or send []" in error["message"]
    assert error["param"].partition(".")[0] in (*REFUSED, "temperature")


@pytest.mark.parametrize("name", REFUSED)
def test_each_of_them_alone_is_refused_by_its_name(http: httpx.Client, name: str) -> None:
    answer = ask(http, **{name: REFUSED[name]})
    assert (answer.status_code, answer.json()["error"]["param"].partition(".")[0]) == (400, name)


def test_completions_have_no_suffix_no_beams_and_echo_no_stream_and_say_so(http: httpx.Client) -> None:
    assert ask(http, "completions", stream=False, suffix="", best_of=1, stream_options=None).status_code == 200
    answer = ask(http, "completions", suffix="x", best_of=3, echo=True, max_tokens=0, stream=True)
    assert answer.status_code == 400
    assert all(name in answer.json()["error"]["message"] for name in ("suffix", "best_of", "echo"))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"refusal": None, "tool_calls": None, "function_call": None, "annotations": [], "audio": None},
        {"tool_calls": [], "reasoning_content": None, "reasoning": None, "name": None, "annotations": None},
    ],
)
def test_a_reply_may_be_sent_back_as_it_came(http: httpx.Client, fields: dict[str, Any]) -> None:
    message = ask(http).json()["choices"][0]["message"]
    assert message.items() >= {"role": "assistant", "refusal": None}.items()
    follow = {"role": "user", "content": "You open it."}
    answer = ask(http, messages=[*CHAT, message | fields, follow])
    bare = {"role": "assistant", "content": message["content"]}
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"] == ask(http, messages=[*CHAT, bare, follow]).json()["choices"]


@pytest.mark.parametrize("fields", [{"refusal": None}, {"name": "anna"}, {"foo": {"bar": [1]}}, {"annotations": [{}]}])
@pytest.mark.parametrize("place", [1, 2])
def test_fields_of_a_message_that_are_not_known_are_taken(
    http: httpx.Client, fields: dict[str, Any], place: int
) -> None:
    messages: list[dict[str, Any]] = [*CHAT, {"role": "assistant", "content": "go"}, {"role": "user", "content": "on"}]
    more = [message | (fields if index == place else {}) for index, message in enumerate(messages)]
    answer = ask(http, messages=more)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"] == ask(http, messages=messages).json()["choices"]


def test_a_content_in_parts_a_null_content_and_a_developer_are_taken(http: httpx.Client) -> None:
    plain = [{"role": "system", "content": "Rules."}, {"role": "user", "content": "Go.\nOn."}]
    parts = [{"type": "text", "text": "Go."}, {"type": "text", "text": "On.", "cache_control": {"type": "ephemeral"}}]
    same = [{"role": "developer", "content": "Rules."}, {"role": "user", "content": parts}]
    assert ask(http, messages=same).json()["choices"] == ask(http, messages=plain).json()["choices"]
    assert ask(http, messages=[*plain, {"role": "assistant", "content": None}, plain[1]]).status_code == 200


@pytest.mark.parametrize(
    "part", [{"type": "image_url", "image_url": {"url": "data:"}}, {"type": "file", "file": {"file_id": "f"}}]
)
def test_a_message_that_is_not_text_is_refused(http: httpx.Client, part: dict[str, Any]) -> None:
    answer = ask(http, messages=[*CHAT, {"role": "user", "content": [{"type": "text", "text": "Look."}, part]}])
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "messages.2"


@pytest.mark.parametrize("logprobs", [False, True])
def test_a_chat_reply_is_complete_by_openais_specification(http: httpx.Client, logprobs: bool) -> None:
    answer = ask(http, n=2, logprobs=logprobs)
    ChatCompletion.model_validate_json(answer.content, strict=True)
    reply = answer.json()
    assert reply.keys() >= {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    assert reply["usage"].keys() >= {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details"}
    for choice in reply["choices"]:
        assert choice.keys() >= {"index", "message", "logprobs", "finish_reason"}
        assert choice["message"].keys() == {"role", "content", "refusal"}
        assert (choice["logprobs"] is not None) == logprobs
        if logprobs:
            assert choice["logprobs"]["refusal"] is None
            assert choice["logprobs"]["content"][0].keys() >= {"token", "logprob", "bytes", "top_logprobs"}


def test_every_chunk_is_complete_by_openais_specification(http: httpx.Client) -> None:
    for fields in ({}, {"logprobs": True}, {"stream_options": {"include_usage": True}}, {"n": 2}):
        told = chunks(http, **fields)
        for chunk in told:
            ChatCompletionChunk.model_validate_json(json.dumps(chunk), strict=True)
            assert chunk.keys() >= {"id", "object", "created", "model", "system_fingerprint", "choices"}
            assert all(each.keys() == {"index", "delta", "logprobs", "finish_reason"} for each in chunk["choices"])
            assert all(None not in each["delta"].values() for each in chunk["choices"])
        firsts: dict[int, Any] = {}
        for chunk in told:
            for each in chunk["choices"]:
                firsts.setdefault(each["index"], each["delta"])
        assert [first["role"] for first in firsts.values()] == ["assistant"] * len(firsts)


def test_a_stream_tells_its_usage_at_the_end_when_asked(http: httpx.Client) -> None:
    *others, last = chunks(http, n=2, stream_options={"include_usage": True})
    whole = ask(http, n=2).json()["usage"]
    assert last["choices"] == []
    counts = ("prompt_tokens", "completion_tokens", "total_tokens")
    assert [last["usage"][count] for count in counts] == [whole[count] for count in counts]
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in others)
    assert all("usage" not in chunk for chunk in chunks(http))
    assert all("usage" not in chunk for chunk in chunks(http, stream_options={"include_usage": False}))


@pytest.mark.parametrize("options", [{"include_usage": "perhaps"}, {"usage": True}, [], 1, "x"])
def test_wrong_stream_options_are_refused(http: httpx.Client, options: Any) -> None:
    answer = ask(http, stream=True, stream_options=options)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("stream_options")


def test_completions_and_models_are_complete_by_openais_specification(http: httpx.Client) -> None:
    answer = ask(http, "completions", logprobs=0)
    Completion.model_validate_json(answer.content, strict=True)
    assert answer.json().keys() >= {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    assert ask(http, "completions").json()["choices"][0].keys() >= {"text", "index", "logprobs", "finish_reason"}
    listed = http.get("/v1/models").json()
    assert listed["object"] == "list"
    for card in listed["data"]:
        Model.model_validate(card, strict=True)


def test_the_sdk_itself_talks_to_the_server(server: str) -> None:
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0, _strict_response_validation=True)
    messages: Any = list(CHAT)
    for _ in range(2):
        reply = client.chat.completions.create(model="base", messages=messages, max_tokens=4, temperature=0)
        messages += [reply.choices[0].message.model_dump(), {"role": "user", "content": "You open it."}]
    stream = client.chat.completions.create(
        model="base", messages=messages, max_tokens=4, stream=True, stream_options={"include_usage": True}
    )
    *_, last = stream
    assert last.usage is not None
    assert last.usage.completion_tokens > 0
    assert [model.id for model in client.models.list()] == ["base"]
    assert client.models.retrieve("base").id == "base"
    for name in ("nobody", "org/nobody"):
        with pytest.raises(openai.NotFoundError, match="is not loaded; there are base"):
            client.models.retrieve(name)
    for fields in ({"model": "nobody"}, {"temperature": 3}, {"verbosity": "low"}):
        body: Any = {"model": "base", "messages": messages, **fields}
        with pytest.raises((openai.NotFoundError, openai.BadRequestError)) as refused:
            client.chat.completions.create(**body)
        assert isinstance(refused.value.body, dict)
        assert refused.value.body.keys() == {"message", "type", "code", "param"}
