"""The tools of each step: wherever they are told, in one form; where they were hidden, nothing is learned."""

import json
from typing import Any

import pytest

from ratchet_client.events import StepEvent
from streams.assembly.assembly import Assembly, assemble
from streams.otlp.dialects.tools import offered_tools
from streams.otlp.records import Attributes
from tests.builders.spans import conventions, openinference, openllmetry, root, span, states

SCHEMA: Any = {"type": "object", "properties": {"room": {"type": "string"}}}
LOOK: Any = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": SCHEMA}}
FLAT: Any = {"type": "function", "name": "look", "description": "Look.", "parameters": SCHEMA}
MISSING = "content of a model call in its trace is missing: "


def steps_of(assembly: Assembly) -> list[StepEvent]:
    return [event for event in assembly.events if isinstance(event, StepEvent)]


@pytest.mark.parametrize(
    "definition",
    [
        LOOK,
        FLAT,
        {"type": "function", "function": {**LOOK["function"], "strict": None}},
        {"name": "look", "description": "Look.", "input_schema": SCHEMA},
        {"name": "look", "description": "Look.", "inputSchema": SCHEMA},
        {"name": "look", "description": "Look.", "parameters_json_schema": SCHEMA, "strict": None, "kind": "function"},
        {"name": "look", "description": "Look.", "parameters": json.dumps(SCHEMA)},
        {"type": "custom", "name": "look", "description": "Look.", "input_schema": SCHEMA},
        {"toolSpec": {"name": "look", "description": "Look.", "inputSchema": {"json": SCHEMA}}},
        {"function_declarations": [{"name": "look", "description": "Look.", "parameters": SCHEMA}]},
        {"functionDeclarations": [{"name": "look", "description": "Look.", "parametersJsonSchema": SCHEMA}]},
    ],
)
def test_a_definition_is_the_same_in_the_form_of_every_api(definition: Any) -> None:
    values: list[Any] = [[definition], json.dumps([definition]), [json.dumps(definition)]]
    for value in values:
        assert offered_tools({"gen_ai.tool.definitions": value}) == (LOOK,)
        assert offered_tools({"ai.prompt.tools": value}) == (LOOK,)
    assert offered_tools({"llm.tools.0.tool.json_schema": json.dumps(definition)}) == (LOOK,)
    told = json.dumps({"tools": [definition]})
    assert offered_tools({"llm.invocation_parameters": told}) == (LOOK,)


@pytest.mark.parametrize("builtin", [{"type": "web_search"}, {"type": "custom", "name": "run", "format": {}}])
def test_tools_of_other_kinds_are_kept_as_they_are(builtin: Any) -> None:
    assert offered_tools({"gen_ai.tool.definitions": [FLAT, builtin]}) == (LOOK, builtin)


def test_a_call_without_tools_has_none() -> None:
    assert offered_tools({}) == ()
    assert offered_tools({"llm.invocation_parameters": '{"temperature": 1}', "model_request_parameters": "{}"}) == ()


def test_what_only_the_request_says_of_a_tool_is_added() -> None:
    requested = {"function_tools": [{"name": "look", "parameters_json_schema": SCHEMA, "strict": True}, {"name": [1]}]}
    told: Attributes = {"gen_ai.tool.definitions": [FLAT], "model_request_parameters": json.dumps(requested)}
    assert offered_tools(told) == ({"type": "function", "function": {**LOOK["function"], "strict": True}},)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"gen_ai.tool.definitions": "__REDACTED__"}, "masked"),
        ({"llm.tools.0.tool.json_schema": "__REDACTED__"}, "masked"),
        ({"gen_ai.tool.definitions": json.dumps([FLAT])[:40]}, "cut off by a limit"),
        ({"ai.prompt.tools": [json.dumps(FLAT)[:40]]}, "incomplete"),
        ({"llm.tools.0.tool.json_schema": json.dumps(FLAT)[:40]}, "cut off by a limit"),
    ],
)
@pytest.mark.parametrize("dialect", [conventions, openllmetry, openinference])
def test_steps_whose_tools_were_hidden_are_stored_and_not_learned_from(
    dialect: Any, attributes: Attributes, reason: str
) -> None:
    first, second = (dialect(*state) for state in states(2))
    assembly = assemble("run", [span(1, first), span(2, second | attributes), root()], {})
    steps = steps_of(assembly)
    assert [(step.flag, step.tools) for step in steps] == [(MISSING + reason, ())] * 2
    assert dict(assembly.absences) == {reason: 1}


def test_tools_that_a_limit_dropped_are_missed() -> None:
    told = openinference(*states()[0]) | {f"llm.tools.{n}.tool.json_schema": json.dumps(LOOK) for n in (1, 2)}
    for dropped, flag, tools in ((0, None, 2), (3, f"{MISSING}cut off by a limit", 0)):
        (step,) = steps_of(assemble("run", [span(1, told, dropped_attributes=dropped)], {}))
        assert (step.flag, len(step.tools)) == (flag, tools)


def test_tools_may_change_from_step_to_step() -> None:
    first, second, third = (conventions(*state) for state in states())
    told = [span(1, first), span(2, second | {"gen_ai.tool.definitions": [FLAT]}), span(3, third), root()]
    assert [step.tools for step in steps_of(assemble("run", told, {}))] == [(), (LOOK,), ()]
