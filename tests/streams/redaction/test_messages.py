"""Redaction of tool calls, their results, parts, definitions of tools, and fields that no version knows."""

import base64
import json
import random
from typing import Any

import pytest

from ratchet_client.events import EVENT, StepEvent
from ratchet_client.messages import Message, Tools, assistant, call, tool_result, user
from streams.branch_events import BranchResult, RecoveryResult
from streams.errors import UnjudgeableError
from streams.redaction.redactor import Redactor
from streams.redaction.settings import RedactionSettings
from tests.builders.stored import branches, recovery
from tests.planted import PLANTED

KEY = b"a key of the tests"
REDACTOR = Redactor(RedactionSettings(), KEY)
PICTURE = base64.b64encode(random.Random(0).randbytes(3000)).decode()


def step(**fields: Any) -> StepEvent:
    """A step in which a tool was called, with those fields instead of its own."""
    event = EVENT.validate_python(
        {
            **{"kind": "step", "event_id": "e1-0", "episode_id": "e1", "step": 0, "agent": "desk", "principal": "p"},
            "task": {"environment": "shop", "task_id": "t"},
            "messages": [user("Order a kettle.")],
            "action": assistant(None, call("order", '{"what": "kettle"}', "call_1")),
            "observation": [tool_result('{"ok": true}', "call_1")],
            "actor": {"kind": "expert"},
        }
        | fields
    )
    assert isinstance(event, StepEvent)
    return event


def redacted(event: StepEvent) -> StepEvent:
    """What is stored of it; it is read again, so it is what was redacted."""
    done = REDACTOR.redact(event).event
    assert EVENT.validate_json(done.to_json()) == done
    assert isinstance(done, StepEvent)
    return done


def arguments(text: str) -> str:
    """What is left of arguments, and of the result of a tool that says the same."""
    event = step(action=assistant(None, call("order", text, "call_1")), observation=[tool_result(text, "call_1")])
    done = redacted(event)
    function = done.action.calls[0].function
    assert function is not None
    assert function.arguments == done.observation[0].text
    return function.arguments


@pytest.mark.parametrize(("value", "around", "kind"), PLANTED)
def test_a_planted_value_is_gone_from_every_place_and_is_one_placeholder(value: str, around: str, kind: str) -> None:
    text = around.format(value)
    inner = json.dumps({"note": {"text": [text]}})
    tools: Tools = (
        {"type": "function", "function": {"name": "order", "description": text, "parameters": {"default": text}}},
    )
    part = {"type": "text", "text": text, "cache_control": {"note": text}}
    event = step(
        tools=tools,
        messages=[Message.model_validate({"role": "user", "content": [part], "name": text}), user(text)],
        action=Message.model_validate(
            {
                **{"role": "assistant", "content": text, "reasoning_content": text, "annotations": [{"title": text}]},
                "tool_calls": [
                    {"id": "1", "function": {"name": "order", "arguments": inner, "note": text}},
                    {"id": "2", "type": "custom", "custom": {"input": text}},
                ],
            }
        ),
        observation=[tool_result(inner, "1"), Message.model_validate({"role": "tool", "content": [part]})],
        flag=text[:500],
    )
    found = REDACTOR.redact(event)
    said = found.event.to_json().decode()
    assert json.dumps(value)[1:-1] not in said
    assert json.dumps(value, ensure_ascii=False)[1:-1] not in said
    assert found.counts[kind] >= 14
    assert json.loads(redacted(event).observation[0].text)


@pytest.mark.parametrize(
    "text", ["jo@example.org", "{'to': 'jo@example.org'", '{"to": "jo@example.org"', '"jo@example.org"']
)
def test_what_is_no_json_object_is_a_text(text: str) -> None:
    left = arguments(text)
    assert "jo@" not in left
    assert len(left) == len(text) - len("jo@example.org") + len("<EMAIL_123456>")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('{ "a" :1,\t"password":"hunter2" , "n": 1.0e5}', '{ "a" :1,\t"password":"<P>" , "n": 1.0e5}'),
        ('{"card": 4111111111111111, "n": 12}', '{"card": "<P>", "n": 12}'),
        ('{"pin":1234,"pins":[1, 22]}', '{"pin":"<P>","pins":["<P>", "<P>"]}'),
        ('{"é\\u00e9":"\\u00fc \\"jo@example.org\\" ü"}', '{"é\\u00e9":"ü \\"<P>\\" ü"}'),
        ('{"name":"DB_PASSWORD","value":"hunter2"}', '{"name":"DB_PASSWORD","value":"<P>"}'),
        ('{"value":"hunter2","key":"DB_PASSWORD"}', '{"value":"<P>","key":"DB_PASSWORD"}'),
        ('[{"value": "swordfish", "name": "db.password"}]', '[{"value": "<P>", "name": "db.password"}]'),
        ('{"password":{"value":"swordfish","n":1}}', '{"password":{"value":"<P>","n":1}}'),
        ('["mysql","--password","hunter2secret99"]', '["mysql","--password","<P>"]'),
        ('["--token",\n    "a1b2c3d4e5", "-v"]', '["--token",\n    "<P>", "-v"]'),
        ('[["SSN:", "123456789"], [12]]', '[["SSN:", "<P>"], [12]]'),
        ('{"jo@example.org": {"password": {"min": 8}}}', '{"<P>": {"password": {"min": 8}}}'),
        ('{"a":"x","a":"jo@example.org"}', '{"a":"x","a":"<P>"}'),
        ('{"in":"{\\"password\\": \\"hunter2\\", \\"n\\": 1}"}', '{"in":"{\\"password\\": \\"<P>\\", \\"n\\": 1}"}'),
    ],
)  # fmt: skip
def test_json_is_redacted_value_by_value_and_the_rest_stays_byte_for_byte(text: str, left: str) -> None:
    found = arguments(text)
    json.loads(found)
    placeholders = REDACTOR.placeholders(found)
    assert placeholders
    for placeholder in placeholders:
        found = found.replace(placeholder, "<P>")
    assert found == left


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ('{"password": "hunter2secret99', "hunter2"),
        ('{"user": "jo", "password": "hunter2secret99...[truncated]', "hunter2"),
        ('{"password": "hunter2secret99\n[300 lines left out]', "hunter2"),
        ("{'password': 'hunter2\u2026", "hunter2"),
        ('{"api_key":"a1b2c3d4e5', "a1b2"),
        ('{"password": "correct horse batt', "horse"),
        ('{"password": "swordfi', "swordfi"),
        ('{"in": "{\\"password\\": \\"hunter2secret99', "hunter2"),
        (json.dumps({"in": '{"password": "hunter2secret99'}), "hunter2"),
        ('DB_PASSWORD="hunter2sec', "hunter2"),
    ],
)
def test_secrets_are_found_in_what_was_cut_off(text: str, secret: str) -> None:
    found = arguments(text)
    assert secret not in found
    assert "password" in found.lower() or "api_key" in found
    assert REDACTOR.placeholders(found)


@pytest.mark.parametrize(
    "text",
    [
        '{"password": "',
        '{"password": "${DB_PASSWORD}',
        '{"password_policy": "at least 12 charac',
        'echo "Enter password:"\nread -r answer1',
        'query = "password=" + given1',
        "The secret: 'tis a long\nstory.",
        "SELECT '... password=' || given1",
        '{"token": "next pa',
    ],
)
def test_what_was_cut_off_without_a_secret_stays(text: str) -> None:
    assert arguments(text) == text


def test_a_value_has_one_placeholder_in_calls_results_and_words() -> None:
    event = step(
        messages=[user("Mail jo@example.org, and password=hunter2")],
        action=assistant("I mail jo@example.org.", call("mail", '{"to":"jo@example.org","password":"hunter2"}', "1")),
        observation=[
            tool_result('{"sent":["jo@example.org"],"by":"a\\u0040example.org"}', "1"),
            user("jo@example.org?"),
        ],
    )
    names = REDACTOR.placeholders(redacted(event).to_json().decode())
    assert len(names) == 8
    assert len(set(names)) == 3


@pytest.mark.parametrize(
    "text",
    [
        *('{ "what" : "kettle",\n"n": 1.50 }', "{}", "[]", "", "{not json", '{"tokens": 512, "id": "550e8400"}'),
        '{"a":' * 80 + "1" + "}" * 80,
    ],
)
def test_where_nothing_is_found_the_event_is_the_same_object(text: str) -> None:
    event = step(
        action=assistant(None, call("order", text, "call_1")),
        observation=[tool_result(text, "call_1")],
        tools=({"type": "function", "function": {"name": "order", "parameters": {"type": "object", "x": None}}},),
    )
    assert REDACTOR.redact(event).event is event
    assert REDACTOR.redact(event).event is event


def test_pictures_and_files_are_kept_as_references() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://shop.example.org/kettle.png"}},
        {"type": "input_audio", "input_audio": {"data": PICTURE, "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-7", "filename": "bill of jo@example.org.pdf"}},
    ]
    done = redacted(step(messages=[Message.model_validate({"role": "user", "content": parts})]))
    content = done.messages[0].content
    assert isinstance(content, tuple)
    left = [part.model_dump(exclude_none=True) for part in content]
    placeholder = left[2]["input_audio"]["data"]
    assert placeholder.startswith("<OPAQUE_")
    assert left[0]["image_url"] == {"url": f"data:image/png;base64,{placeholder}", "detail": "low"}
    assert left[1] == parts[1]
    assert left[3]["file"]["file_id"] == "file-7"
    assert "jo@" not in left[3]["file"]["filename"]


def test_fields_that_nobody_reads_may_hide_anything_and_words_may_not() -> None:
    signed = call("order", "{}", f"call_1__thought__{PICTURE}")
    action = Message.model_validate(
        assistant("Well.", signed).model_dump() | {"reasoning_details": [{"type": "encrypted", "data": PICTURE}]}
    )
    done = redacted(step(action=action, observation=[tool_result("Done.", signed.id)]))
    assert PICTURE[:100] not in done.to_json().decode()
    assert done.action.calls[0].id == done.observation[0].tool_call_id
    with pytest.raises(UnjudgeableError, match="may hide anything"):
        REDACTOR.redact(step(observation=[tool_result(json.dumps({"screenshot": PICTURE}), "call_1")]))


def test_names_and_ids_stay() -> None:
    long = "mcp__Qm7xK2pL9vR4tY8wZ1nB6cD3fG5hJ0sA__search"
    event = step(
        action=assistant(None, call(long, "{}", "call_Qm7xK2pL9vR4tY8wZ1nB6cD3fG5hJ0sA")),
        observation=[tool_result("Done.", "call_Qm7xK2pL9vR4tY8wZ1nB6cD3fG5hJ0sA")],
    )
    assert REDACTOR.redact(event).event is event


def test_fields_and_definitions_that_are_too_deep_are_refused() -> None:
    deep: Any = 1
    for _ in range(70):
        deep = {"inner": deep}
    for event in (step(tools=({"function": deep},)), step(messages=[{"role": "user", "content": "", "x": deep}])):
        with pytest.raises(UnjudgeableError, match="deep"):
            REDACTOR.redact(event)


def test_the_default_of_a_parameter_is_the_parameters() -> None:
    properties = {
        "password": {"type": "string", "default": "hunter2", "description": "The password."},
        "n": {"default": 3},
    }
    tools: Any = ({"type": "function", "function": {"parameters": {"properties": properties}}},)
    left: Any = redacted(step(tools=tools)).tools[0]
    password = left["function"]["parameters"]["properties"].pop("password")
    assert password.pop("default").startswith("<PASSWORD_")
    assert password == {"type": "string", "description": "The password."}
    assert left["function"]["parameters"]["properties"] == {"n": {"default": 3}}


def test_names_of_parameters_are_no_values() -> None:
    schema: Any = {
        "properties": {"password": {"type": "string"}, "value": {"type": "string"}},
        "dependentRequired": {"password": ["username"], "username": ["password"]},
        "dependencies": {"password": ["username"]},
    }
    event = step(tools=({"type": "function", "function": {"parameters": schema}},))
    assert REDACTOR.redact(event).event is event


@pytest.mark.parametrize(
    "text",
    [
        '["--password", "--user", "jo"]',
        '["--password", "password"]',
        '["--token", "your token 123"]',
        '{"value": "password", "name": "password"}',
        '{"value": "12 rounds", "name": "password_policy"}',
        '{"value": "Enter your password", "key": "password"}',
        "click.option('--api-key', 'api_key')",
    ],
)
def test_what_stands_beside_the_name_of_a_secret_and_is_none_stays(text: str) -> None:
    assert arguments(text) == text


@pytest.mark.parametrize("result", [branches("e", actions=("a",)), recovery("e", actions=("a",))])
def test_results_of_branch_workers_are_redacted_as_events_are(result: BranchResult | RecoveryResult) -> None:
    action = assistant("a", call("mail", '{"to":"jo@example.org"}'))
    tools = ({"type": "function", "function": {"description": "Mails jo@example.org."}},)
    update: dict[str, object]
    if isinstance(result, BranchResult):
        update = {"alternatives": (result.alternatives[0].model_copy(update={"action": action}),)}
    else:
        kept = {"action": action, "tools": tools, "reasoning_kept": True}
        steps = (result.recoveries[0].steps[0].model_copy(update=kept),)
        update = {"recoveries": (result.recoveries[0].model_copy(update={"steps": steps}),)}
    told = result.model_copy(update=update)
    cleaned, counts = REDACTOR.redact_result(told)
    assert b"jo@" in told.to_json()
    assert b"jo@" not in cleaned.to_json()
    assert counts["email"] == (1 if isinstance(result, BranchResult) else 2)
    assert type(result).model_validate_json(cleaned.to_json()) == cleaned
    assert isinstance(cleaned, BranchResult) or cleaned.recoveries[0].steps[0].reasoning_kept
    assert REDACTOR.redact_result(result) == (result, {})


def test_the_raw_values_of_json_are_found_by_their_placeholders() -> None:
    text = '{"password": "hunter2", "to": "jo\\u0040example.org"}'
    values = REDACTOR.raw_values(text, "e1")
    (redacted_message,), _ = REDACTOR.redact_messages([tool_result(text)], "e1")
    assert set(REDACTOR.placeholders(redacted_message.text)) <= set(values)
    assert {"hunter2", "jo@example.org"} <= {each for found in values.values() for each in found}
