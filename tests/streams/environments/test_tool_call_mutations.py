import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import JsonValue

from ratchet_client.messages import Message, ToolDefinition, assistant, tool_result, user
from ratchet_client.messages import call as tool_call
from streams.environments.bfcl.environment import BFCL
from streams.environments.tool_call_mutations import mutations, texts_of
from streams.environments.tool_calls import Call, calling, calls_of, canonical, render
from streams.environments.tool_definitions import Tool
from streams.errors import ToolCallError

BOOK = Tool(
    "book",
    "Book a seat.",
    {
        "type": "object",
        "properties": {
            "seat": {"type": "string", "enum": ["window", "aisle", "middle"]},
            "day": {"type": "string"},
            "bags": {"type": "integer", "minimum": 0, "maximum": 3},
            "price": {"type": "number"},
            "meal": {"type": "boolean"},
            "guests": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
            "contact": {
                "type": "object",
                "properties": {"mail": {"type": "string"}, "phone": {"type": "string"}},
                "required": ["mail"],
                "additionalProperties": False,
            },
        },
        "required": ["seat", "day"],
        "additionalProperties": False,
    },
)
CANCEL = Tool(
    "cancel",
    "Cancel a booking.",
    {
        "type": "object",
        "properties": {"booking_id": {"type": "integer"}},
        "required": ["booking_id"],
        "additionalProperties": False,
    },
)
HELP = Tool("help", "Say what can be done.", {"type": "object", "properties": {}, "additionalProperties": False})
TOOLS = (BOOK.definition, CANCEL.definition, HELP.definition)


def acting(*calls: Call) -> Message:
    return calling(calls, "trusted")


CONTEXT = """I fly on 2026-10-15 and come back on 2026-11-02, with 'Ann Lee' and my 2 bags, for at most 120.50.
[{"booking_id": 4711, "status": "open"}]"""

TRUSTED = acting(Call("book", {"seat": "aisle", "day": "2026-10-15", "bags": 2}))
DONE = assistant("Done.")
ANSWER = assistant("All is booked.")

words = st.text(max_size=12)
arguments: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"seat": st.sampled_from(["window", "aisle", "middle"]), "day": words},
    optional={
        "bags": st.integers(0, 3),
        "price": st.floats(allow_nan=False, allow_infinity=False),
        "meal": st.booleans(),
        "guests": st.lists(words, max_size=2),
        "contact": st.fixed_dictionaries({"mail": words}, optional={"phone": words}),
    },
)
calls = st.one_of(
    arguments.map(lambda given: Call("book", given)),
    st.integers().map(lambda number: Call("cancel", {"booking_id": number})),
    st.just(Call("help", {})),
)
actions = st.one_of(st.lists(calls, min_size=1, max_size=4).map(lambda made: acting(*made)), st.just(ANSWER))


def found(trusted: Message, most: int = 60, context: str = CONTEXT, seed: int = 0) -> tuple[Message, ...]:
    return mutations(trusted, TOOLS, context, random.Random(seed), most)


def keys(actions: tuple[Message, ...]) -> set[str]:
    return set(map(canonical, actions))


def booked(actions: tuple[Message, ...]) -> list[dict[str, JsonValue]]:
    return [dict(call.arguments) for action in actions for call in calls_of(action) if call.name == "book"]


@given(trusted=actions, context=st.one_of(st.just(CONTEXT), st.text()), seed=st.integers(), most=st.integers(0, 12))
@settings(deadline=None)
def test_mutations_are_valid_different_and_never_the_trusted_action(
    trusted: Message, context: str, seed: int, most: int
) -> None:
    mutated = mutations(trusted, TOOLS, context, random.Random(seed), most)
    assert len(mutated) <= most
    assert len(keys((trusted, *mutated))) == len(mutated) + 1
    schemas = {tool.name: Draft202012Validator(tool.parameters) for tool in (BOOK, CANCEL, HELP)}
    for action in mutated:
        assert action == DONE or action.content is None
        assert all(schemas[call.name].is_valid(call.arguments) for call in calls_of(action))
    assert mutations(trusted, TOOLS, context, random.Random(seed), most) == mutated


@given(trusted=actions, seed=st.integers())
@settings(deadline=None)
def test_every_call_of_a_mutation_has_an_id_that_no_call_of_the_trusted_action_has(trusted: Message, seed: int) -> None:
    own = {call.id for call in trusted.calls}
    for action in found(trusted, most=6, seed=seed):
        ids = [call.id for call in action.calls]
        assert len(set(ids)) == len(ids)
        assert not own & set(ids)
        assert all(identity.startswith("call_") for identity in ids)


@given(seed=st.integers())
@settings(deadline=None)
def test_there_are_as_many_as_were_asked_for_where_there_is_much_to_change(seed: int) -> None:
    assert len(found(TRUSTED, most=5, seed=seed)) == 5


def test_values_change_by_their_type_and_by_what_was_said() -> None:
    mutated = booked(found(TRUSTED))
    assert {"seat": "window", "day": "2026-10-15", "bags": 2} in mutated
    assert {"seat": "aisle", "day": "2026-11-02", "bags": 2} in mutated
    assert {"seat": "aisle", "day": "2026-10-15", "bags": 3} in mutated
    assert {"seat": "aisle", "day": "2026-10-15"} in mutated
    assert {"seat": "aisle", "day": "2026-10-15", "bags": 2, "meal": True} in mutated


def test_another_tool_is_called_with_values_seen_under_the_arguments_name() -> None:
    other = canonical(acting(Call("cancel", {"booking_id": 4711})))
    assert other in keys(found(TRUSTED))
    assert other in keys(found(ANSWER))


def test_values_come_from_results_and_from_the_arguments_of_earlier_calls_too() -> None:
    state = (
        user("Cancel what I have."),
        assistant(None, tool_call("find", '{"booking_id":812}', "call_1")),
        tool_result('{"booking_id": 4711}', "call_1"),
    )
    mutated = keys(found(acting(Call("cancel", {"booking_id": 5})), context=texts_of(state)))
    assert {canonical(acting(Call("cancel", {"booking_id": number}))) for number in (812, 4711)} <= mutated


def test_a_plain_answer_instead_of_every_call_is_a_mutation() -> None:
    assert DONE in found(TRUSTED)
    assert DONE not in found(ANSWER)


def test_of_several_calls_one_is_left_out_or_changed_or_two_change_places() -> None:
    first, second = Call("cancel", {"booking_id": 1}), Call("help", {})
    mutated = found(acting(first, second))
    assert {render([first]), render([second]), render([second, first])} <= keys(mutated)
    assert any(len(action.calls) == 2 and calls_of(action)[1] == second for action in mutated)
    assert DONE in mutated


def test_an_optional_argument_that_says_the_default_is_no_change() -> None:
    every: dict[str, JsonValue] = {"type": "object", "properties": {"all": {"type": "boolean", "default": False}}}
    trusted = acting(Call("list", {}))
    mutated = mutations(trusted, (Tool("list", "List files.", every).definition,), "", random.Random(0), 10)
    assert keys(mutated) == {"[]", render([Call("list", {"all": True})])}


def test_without_tools_there_is_only_the_answer_to_the_user() -> None:
    assert mutations(TRUSTED, (), CONTEXT, random.Random(0), 5) == (DONE,)
    assert mutations(DONE, (), CONTEXT, random.Random(0), 5) == ()


@pytest.mark.parametrize("arguments", ["{broken", "[]", "null"])
def test_a_malformed_action_has_no_mutations(arguments: str) -> None:
    with pytest.raises(ToolCallError):
        found(assistant(None, tool_call("book", arguments, "call_1")))


def test_mutations_of_real_demonstrations_are_understood() -> None:
    session, generator = BFCL(), random.Random(0)
    for task in generator.sample(session.task_list("multi_turn_base", "train"), 10):
        first = session.reset(task)
        tools, said = first.tools or (), [*first.messages]
        for trusted in session.demonstration(task):
            here = session.snapshot()
            alternatives = mutations(trusted, tools, texts_of(said), generator, 4)
            assert len(alternatives) == 4
            for action in alternatives:
                session.restore(here)
                assert session.step(action).understood, action
            session.restore(here)
            said += session.step(trusted).messages


# As pydantic and other libraries write them for the functions of an agent.
ODD_SCHEMAS: list[dict[str, JsonValue]] = [
    {
        "type": "object",
        "properties": {
            "when": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/Day"}]},
            "note": {"type": ["string", "null"]},
        },
        "required": ["when"],
        "$defs": {"Day": {"type": "string", "enum": ["today", "tomorrow"]}},
    },
    {"type": "object", "properties": {"tree": {"$ref": "#/$defs/Tree"}}, "$defs": {"Tree": {"$ref": "#/$defs/Tree"}}},
    {
        "type": "object",
        "properties": {"tree": {"$ref": "#/$defs/Tree"}},
        "$defs": {"Tree": {"properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}}}},
    },
    {"type": "object", "properties": {"anything": True, "nothing": False, "fixed": {"const": 3}}},
    {"type": "object", "properties": {"rows": {"type": "array", "items": {"properties": {"a": {"type": "integer"}}}}}},
    {"type": "object", "allOf": [{"properties": {"a": {"oneOf": [{"type": "integer"}, {"type": "null"}]}}}]},
    {"type": "object"},
]


@pytest.mark.parametrize("parameters", ODD_SCHEMAS)
def test_any_valid_schema_is_mutated_by(parameters: dict[str, JsonValue]) -> None:
    tool = Tool("odd", "", parameters)
    assert Tool.of(tool.definition) == tool
    trusted = acting(Call("odd", {"when": "today", "rows": [{"a": 1}], "fixed": 3, "anything": {"deep": [None]}}))
    mutated = mutations(trusted, (tool.definition,), CONTEXT, random.Random(0), 8)
    assert DONE in mutated
    assert all(tool.takes(call.arguments) for action in mutated for call in calls_of(action))


def test_a_nullable_enumeration_behind_a_reference_is_changed_to_its_other_member() -> None:
    tool = Tool("odd", "", ODD_SCHEMAS[0])
    mutated = mutations(acting(Call("odd", {"when": "today"})), (tool.definition,), "", random.Random(0), 20)
    assert canonical(acting(Call("odd", {"when": "tomorrow"}))) in keys(mutated)


@pytest.mark.parametrize(
    "definition",
    [
        {"type": "custom", "custom": {"name": "odd"}},
        {"type": "function", "function": {"name": "odd", "parameters": {"type": "dict"}}},
        {
            "type": "function",
            "function": {"name": "odd", "parameters": {"type": "object", "$ref": "https://a.example"}},
        },
        {
            "type": "function",
            "function": {"name": "odd", "parameters": {"type": "object", "patternProperties": {"(": {}}}},
        },
    ],
)
def test_a_tool_whose_definition_is_at_fault_is_left_alone(definition: ToolDefinition) -> None:
    with pytest.raises(ToolCallError):
        Tool.of(definition)
    mutated = mutations(acting(Call("odd", {})), (definition, HELP.definition), "", random.Random(0), 5)
    assert keys(mutated) == {"[]", render([Call("help", {})])}


def test_a_call_has_one_key_in_all_spellings() -> None:
    arguments = ('{"b": [1.0, "ü"], "a": {"d": null, "c": 1}}', '{"a":{"c":1,"d":null},"b":[1.0,"\\u00fc"]}')
    spelled = {
        canonical(assistant(text, tool_call("f", each, identity)))
        for each in arguments
        for text, identity in ((None, "call_1"), ("Now f.", "call_2"))
    }
    assert spelled == {'[{"name":"f","arguments":{"a":{"c":1,"d":null},"b":[1.0,"ü"]}}]'}


def test_malformed_calls_have_keys_too() -> None:
    broken = [assistant(None, tool_call("f", arguments, "call_1")) for arguments in ("{a", "{ a", "{b")]
    assert len({canonical(action) for action in (*broken, TRUSTED, ANSWER)}) == 5
    assert canonical(assistant(None, tool_call("f", "", "call_1"))) == canonical(acting(Call("f", {})))
