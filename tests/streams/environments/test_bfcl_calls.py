"""BFCL as a policy meets it: tools that are offered, calls that are answered."""

import json

import pytest

from ratchet_client.events import Task
from ratchet_client.messages import ToolCall, assistant, tool_result
from ratchet_client.messages import call as tool_call
from streams.environments.bfcl.environment import BFCL
from streams.environments.bfcl.scenarios import APIS, CATEGORIES, documented, scenarios
from streams.environments.tool_definitions import Tool
from tests.streams.environments.bfcl_playing import DIFF, call, names, play


def test_the_first_observation_is_what_the_user_says_and_the_tools_are_offered_beside_it() -> None:
    first = BFCL().reset(DIFF)
    assert [message.role for message in first.messages] == ["user"]
    assert first.text.startswith("In documents directory, there's a file that piques my curiosity")
    tail = next(tool for tool in map(Tool.of, first.tools or ()) if tool.name == "tail")
    assert tail.description == "Display the last part of a file of any extension."
    assert (tail.parameters["required"], tail.parameters["additionalProperties"]) == (["file_name"], False)
    properties = tail.parameters["properties"]
    assert isinstance(properties, dict)
    assert properties["lines"] == {
        "type": "integer",
        "description": "The number of lines to display from the end of the file. Defaults to 10.",
        "default": 10,
    }


@pytest.mark.parametrize("api", APIS)
def test_every_tool_has_a_valid_definition(api: str) -> None:
    assert documented(api)
    for tool in documented(api).values():
        assert Tool.of(tool.definition) == tool


@pytest.mark.parametrize("category", CATEGORIES)
def test_no_two_tools_of_a_task_have_one_name(category: str) -> None:
    for scenario in scenarios(category):
        offered = [tool.name for tool in scenario.tools(len(scenario.turns) - 1)]
        assert len(set(offered)) == len(offered)


def test_nothing_tells_the_policy_to_write_json() -> None:
    assert "JSON" not in BFCL.harness.system_prompt
    assert (BFCL.harness.reply, BFCL.harness.max_tokens, BFCL.harness.stop) == ("message", 256, ())


def test_each_call_is_answered_by_its_id_and_a_text_by_what_the_user_says_next() -> None:
    session = BFCL()
    session.reset(DIFF)
    there, where = tool_call("cd", '{"folder": "documents"}', "call_b"), tool_call("pwd", "", "call_a")
    answer = session.step(assistant("I look.", there, where))
    assert answer.messages[0] == tool_result('{"current_working_directory": "documents"}', "call_b")
    assert [message.tool_call_id for message in answer.messages] == ["call_b", "call_a"]
    assert answer.messages[1].text.endswith('/documents"}')
    assert answer.tools is None
    (question,) = session.step(assistant("There you are.")).messages
    assert question.role == "user"
    assert question.text.startswith("I've lately stored some work")


def test_calls_without_ids_are_answered_in_their_order() -> None:
    session = BFCL()
    session.reset(DIFF)
    answer = session.step(assistant(None, tool_call("cd", '{"folder": "documents"}'), tool_call("ls", "{}")))
    assert [message.tool_call_id for message in answer.messages] == [None, None]
    assert json.loads(answer.messages[1].text) == {"current_directory_content": ["report.txt", "summary.txt"]}


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("sudo", "{}", "There is no tool 'sudo'"),
        ("cd", "{}", "'folder' is a required property"),
        ("cd", '{"folder": "documents", "quietly": "yes"}', "'quietly' was unexpected"),
        ("tail", '{"file_name": "report.txt", "lines": "one"}', "at lines: 'one' is not of type 'integer'"),
        ("cd", '{"folder": "docu', "not valid JSON"),
        ("cd", '["documents"]', "not a JSON object"),
        ("absolute_value", '{"number": NaN}', "NaN is not JSON"),
        ("cd", "[" * 100_000, "not valid JSON"),
        ("cd", '{"folder": "\\ud800"}', "not valid JSON"),
    ],
)
def test_a_malformed_call_is_answered_and_changes_nothing(name: str, arguments: str, reason: str) -> None:
    session = BFCL()
    session.reset(DIFF)
    before = session.fingerprint()
    answer = session.step(assistant(None, tool_call(name, arguments, "call_7")))
    assert not answer.understood
    (said,) = answer.messages
    assert (said.role, said.tool_call_id) == ("tool", "call_7")
    assert reason in json.loads(said.text)["error"]
    assert session.fingerprint() == before


def test_a_call_of_something_else_than_a_function_is_answered() -> None:
    session = BFCL()
    session.reset(DIFF)
    answer = session.step(assistant(None, ToolCall(id="call_1", type="custom")))
    assert not answer.understood
    assert answer.messages[0].tool_call_id == "call_1"


def test_no_call_of_an_action_is_executed_when_one_of_them_is_wrong() -> None:
    session = BFCL()
    session.reset(DIFF)
    before = session.fingerprint()
    fine, wrong = tool_call("cd", '{"folder": "documents"}', "call_1"), tool_call("sudo", "{}", "call_2")
    answer = session.step(assistant(None, fine, wrong))
    assert not answer.understood
    assert [(each.tool_call_id, json.loads(each.text)["error"][:21]) for each in answer.messages] == [
        ("call_1", "Not executed, because"),
        ("call_2", "There is no tool 'sud"),
    ]
    assert session.fingerprint() == before


def test_an_error_of_a_tool_is_a_result_like_any_other() -> None:
    session = BFCL()
    session.reset(DIFF)
    answer = session.step(call("cd", folder="nowhere"))
    assert answer.understood
    assert answer.text == """{"error": "cd: 'nowhere': No such file or directory"}"""


def test_a_result_that_cannot_be_written_is_an_error_of_the_tool() -> None:
    session = BFCL()
    session.reset(Task(environment="bfcl", task_id="multi_turn/train/42~base"))
    answer = session.step(call("power", base=10, exponent=5000))
    assert "Error during execution: Exceeds the limit" in answer.text


def test_ids_and_spellings_of_calls_lead_to_the_same_state() -> None:
    session = BFCL()
    spelled = (
        tool_call("tail", '{"file_name":"report.txt","lines":1}', "call_1"),
        tool_call("tail", '{ "lines": 1, "file_name": "report.txt" }', "call_2"),
    )
    states = []
    for each in spelled:
        play(session, DIFF, [call("cd", folder="documents"), assistant(None, each)])
        states.append(session.fingerprint())
    assert states[0] == states[1]
    assert session.canonical(assistant(None, spelled[0])) == session.canonical(assistant("Look.", spelled[1]))


def test_a_tool_that_is_held_back_comes_with_its_turn() -> None:
    session = BFCL()
    first = session.reset(Task(environment="bfcl", task_id="multi_turn/dev/13~miss_func"))
    assert "tail" not in names(first.tools)
    assert not session.step(call("tail", file_name="report.txt")).understood
    then = session.step(assistant("I have no tool for this."))
    assert [message.role for message in then.messages] == ["user"]
    assert names(then.tools) == names(first.tools) | {"cat", "tail"}
    assert session.step(call("tail", file_name="report.txt")).understood
