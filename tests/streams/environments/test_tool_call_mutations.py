import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import JsonValue

from streams.environments.bfcl.environment import BFCL
from streams.environments.environment import Tool
from streams.environments.tool_call_mutations import mutations
from streams.environments.tool_calls import Call, canonical, parse, render
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
TOOLS = (BOOK, CANCEL, HELP)

CONTEXT = """User: I fly on 2026-10-15 and come back on 2026-11-02, with 'Ann Lee' and my 2 bags, for at most 120.50.
[{"booking_id": 4711, "status": "open"}]"""

TRUSTED = render([Call("book", {"seat": "aisle", "day": "2026-10-15", "bags": 2})])

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
actions = st.one_of(st.lists(calls, max_size=4).map(render), st.just("All is booked."))


def found(trusted: str, most: int = 60, context: str = CONTEXT, seed: int = 0) -> tuple[str, ...]:
    return mutations(trusted, TOOLS, context, random.Random(seed), most)


def booked(actions: tuple[str, ...]) -> list[dict[str, JsonValue]]:
    return [dict(call.arguments) for action in actions for call in parse(action) if call.name == "book"]


@given(trusted=actions, context=st.one_of(st.just(CONTEXT), st.text()), seed=st.integers(), most=st.integers(0, 12))
@settings(deadline=None)
def test_mutations_are_valid_different_and_never_the_trusted_action(
    trusted: str, context: str, seed: int, most: int
) -> None:
    mutated = mutations(trusted, TOOLS, context, random.Random(seed), most)
    assert len(mutated) <= most
    assert len({canonical(action) for action in (trusted, *mutated)}) == len(mutated) + 1
    schemas = {tool.name: Draft202012Validator(tool.parameters) for tool in TOOLS}
    for action in mutated:
        assert action == "Done." or action == canonical(action)
        assert all(schemas[call.name].is_valid(call.arguments) for call in parse(action))
    assert mutations(trusted, TOOLS, context, random.Random(seed), most) == mutated


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
    assert render([Call("cancel", {"booking_id": 4711})]) in found(TRUSTED)
    assert render([Call("cancel", {"booking_id": 4711})]) in found("All is booked.")


def test_a_plain_answer_instead_of_every_call_is_a_mutation() -> None:
    assert "Done." in found(TRUSTED)
    assert "Done." not in found("All is booked.")


def test_of_several_calls_one_is_left_out_or_two_change_places() -> None:
    first, second = Call("cancel", {"booking_id": 1}), Call("help", {})
    mutated = found(render([first, second]))
    assert {render([first]), render([second]), render([second, first])} <= set(mutated)


def test_an_optional_argument_that_says_the_default_is_no_change() -> None:
    tool = Tool(
        "list",
        "List files.",
        {
            "type": "object",
            "properties": {"all": {"type": "boolean", "default": False}},
            "additionalProperties": False,
        },
    )
    trusted = render([Call("list", {})])
    mutated = mutations(trusted, [tool], "", random.Random(0), 10)
    assert set(mutated) == {"Done.", render([Call("list", {"all": True})])}


def test_without_tools_there_is_only_the_answer_to_the_user() -> None:
    assert mutations(TRUSTED, (), CONTEXT, random.Random(0), 5) == ("Done.",)
    assert mutations("Done.", (), CONTEXT, random.Random(0), 5) == ()


def test_a_malformed_action_has_no_mutations() -> None:
    with pytest.raises(ToolCallError):
        found("[broken")


def test_mutations_of_real_demonstrations_are_understood() -> None:
    session, generator = BFCL(), random.Random(0)
    for task in generator.sample(session.task_list("multi_turn_base", "train"), 10):
        said = session.reset(task).text
        for trusted in session.demonstration(task):
            here = session.snapshot()
            alternatives = mutations(trusted, session.tools(), said, generator, 4)
            assert len(alternatives) == 4
            for action in alternatives:
                session.restore(here)
                assert session.step(action).understood, action
            session.restore(here)
            said += session.step(trusted).text


def test_a_call_has_one_spelling() -> None:
    spelled = '[ {"arguments": {"b": [1.0, "ü"], "a": {"d": null, "c": 1}}, "name": "f"} ]'
    assert canonical(spelled) == '[{"name":"f","arguments":{"a":{"c":1,"d":null},"b":[1.0,"ü"]}}]'
    assert json.loads(canonical(spelled)) == json.loads(spelled)
