"""Messages as the servers and clients of today spell them."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from streams.messages import MESSAGE, Message, call


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
