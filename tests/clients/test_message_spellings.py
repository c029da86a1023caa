"""Messages as the servers and clients of today spell them."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from ratchet_client.messages import (
    MESSAGE,
    Message,
    as_definition,
    assistant,
    call,
    is_function,
    same_conversation,
    same_message,
    tool_result,
    user,
)


def with_call(**fields: Any) -> str:
    return json.dumps({"role": "assistant", "content": None, "tool_calls": [fields]})


@pytest.mark.parametrize(
    ("fields", "arguments"),
    [
        ({"id": None, "type": None, "function": {"name": "f", "arguments": "{}"}}, "{}"),
        ({"function": {"name": "f", "arguments": None}}, "{}"),
        ({"function": {"name": "f"}}, "{}"),
        ({"function": {"name": "f", "arguments": {"a": "é", "b": [1, 2.5]}}}, '{"a":"é","b":[1,2.5]}'),
        ({"function": {"name": "f", "arguments": {}}}, "{}"),
        ({"function": {"name": "f", "arguments": " {not JSON"}}, " {not JSON"),
    ],
)
def test_a_call_is_read_in_any_spelling_of_its_fields(fields: dict[str, Any], arguments: str) -> None:
    read = MESSAGE.validate_json(with_call(**fields))
    assert read.calls == (call("f", arguments),)
    assert MESSAGE.validate_json(read.to_json()) == read
    assert MESSAGE.validate_python(json.loads(with_call(**fields))) == read


def test_a_call_without_a_name_or_with_a_number_as_its_id_is_refused() -> None:
    for fields in ({"function": {"arguments": "{}"}}, {"id": 1, "function": {"name": "f", "arguments": "{}"}}):
        with pytest.raises(ValidationError):
            MESSAGE.validate_json(with_call(**fields))


@pytest.mark.parametrize("role", ["user", "tool", "system"])
def test_an_empty_reasoning_of_another_role_is_none(role: str) -> None:
    read = MESSAGE.validate_python({"role": role, "content": "a", "reasoning_content": ""})
    assert read.reasoning_content is None
    assert read == Message.model_validate({"role": role, "content": "a"})
    assert json.loads(read.to_json()) == {"role": role, "content": "a"}
    with pytest.raises(ValidationError, match="only an assistant's"):
        MESSAGE.validate_python({"role": role, "content": "a", "reasoning_content": "hm"})


@pytest.mark.parametrize(
    ("recorded", "sent"),
    [
        ('{"x":1.0}', '{"x": 1}'),
        ('{"x":[1e2,{"y":-0.0}]}', '{"x":[100,{"y":0}]}'),
        ('{"x":"a\nb"}', '{"x":"a\\nb"}'),
        ("null", "{}"),
        ("", "{}"),
        ('{"b":1,"a":0.50}', '{"a":0.5,"b":1}'),
    ],
)
def test_arguments_that_another_json_writer_wrote_are_the_same(recorded: str, sent: str) -> None:
    assert same_message(assistant(None, call("f", recorded, "c")), assistant(None, call("f", sent, "c")))


@pytest.mark.parametrize(
    ("recorded", "sent"),
    [('{"x":1.5}', '{"x":1}'), ('{"x":true}', '{"x":1}'), ('{"x":"1.0"}', '{"x":"1"}'), ('{"x":null}', "{}")],
)
def test_other_arguments_are_others(recorded: str, sent: str) -> None:
    assert not same_message(assistant(None, call("f", recorded, "c")), assistant(None, call("f", sent, "c")))


def test_only_an_assistants_text_is_the_same_without_the_white_space_around_it() -> None:
    assert same_message(assistant("Look.\n"), assistant("Look."))
    assert same_message(assistant("\n\n", call("f", "{}", "c")), assistant(None, call("f", "{}", "c")))
    assert not same_message(assistant("Look. Here."), assistant("Look.Here."))
    assert not same_message(user("Look.\n"), user("Look."))
    assert not same_message(tool_result("1\n", "c"), tool_result("1", "c"))


def test_results_of_calls_side_by_side_may_come_in_any_order() -> None:
    action = assistant(None, call("f", "{}", "a"), call("g", "{}", "b"))
    one, other = tool_result("1", "a"), tool_result("2", "b")
    assert same_conversation((action, one, other, user("Go.")), (action, other, one, user("Go.")))
    assert not same_conversation((action, one, other), (action, tool_result("2", "a"), tool_result("1", "b")))
    assert not same_conversation((tool_result("1"), tool_result("2")), (tool_result("2"), tool_result("1")))
    assert not same_conversation((action, one, action, other), (action, other, action, one))


SCHEMA: dict[str, Any] = {"type": "object", "properties": {"x": {"type": "string"}}}
NESTED = {"type": "function", "function": {"name": "f", "description": "Do.", "parameters": SCHEMA}}


@pytest.mark.parametrize(
    "tool",
    [
        NESTED,
        {"type": "function", "name": "f", "description": "Do.", "parameters": SCHEMA},
        {"name": "f", "description": "Do.", "parameters": SCHEMA},
        {"name": "f", "description": "Do.", "input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}},
        {"type": "custom", "name": "f", "description": "Do.", "input_schema": SCHEMA},
        {"name": "f", "description": "Do.", "inputSchema": SCHEMA, "title": None},
        {"type": "function", "function": None, "name": "f", "description": "Do.", "parameters": SCHEMA},
    ],
)
def test_a_tool_in_another_apis_form_is_the_same_definition(tool: dict[str, Any]) -> None:
    assert as_definition(tool) == NESTED
    assert is_function(as_definition(tool))


@pytest.mark.parametrize(
    "tool",
    [{"type": "web_search"}, {"type": "custom", "name": "f", "format": {"type": "text"}}, {"type": "function"}, {}],
)
def test_a_tool_that_is_no_function_is_kept_as_it_is(tool: dict[str, Any]) -> None:
    assert as_definition(tool) == tool
    assert not is_function(as_definition(tool))
