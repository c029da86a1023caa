"""Tool calls over OpenEnv's protocol: BFCL behind the reference server, and a plain server with tools of its own."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchet_client.events import Task
from ratchet_client.messages import assistant, call, tool_result, user
from streams.environments.bfcl.environment import BFCL
from streams.environments.environment import Canonicalises, Snapshots, TaskSource
from streams.environments.openenv.environment import OpenEnv
from streams.environments.openenv.protocol import CapabilitiesData, TextObservationData
from streams.environments.tool_definitions import Tool
from streams.runtime.processes import free_port
from tests.streams.environments.openenv.openenv_servers import reference, settings, started, stopped

PLAIN = Path(__file__).with_name("plain_openenv.py")
TASK = Task(environment="openenv", task_id="multi_turn/dev/13~miss_func")


@pytest.fixture(scope="module")
def desk_port() -> Iterator[int]:
    """Where the reference server serves BFCL."""
    chosen = free_port()
    process = reference(chosen, environment_name="bfcl")
    yield chosen
    assert stopped(process) == 0


@pytest.fixture(scope="module")
def till_port() -> Iterator[int]:
    """Where OpenEnv's own server serves a till with tools."""
    chosen = free_port()
    process = started([str(PLAIN), "sell", str(chosen)], chosen)
    yield chosen
    stopped(process)


def test_tool_calls_pass_through_the_reference_server_as_they_are(desk_port: int) -> None:
    remote, local = OpenEnv(settings(desk_port)), BFCL()
    assert remote.harness == BFCL.harness
    assert isinstance(remote, TaskSource)
    assert isinstance(remote, Canonicalises)
    actions = remote.demonstration(TASK)
    assert actions == local.demonstration(TASK)
    wrong = assistant("Both.", call("pwd", "", "call_1"), call("sudo", "{}", "call_2"))
    both = assistant(None, call("cd", '{"folder": "documents"}', "call_3"), call("ls", '{"a": true}', "call_4"))
    assert remote.reset(TASK) == local.reset(TASK)
    for action in (wrong, both, *actions):
        assert remote.step(action) == local.step(action)
        assert remote.canonical(action) == local.canonical(action)
        assert remote.fingerprint() == local.fingerprint()
    remote.close()


def test_a_state_with_other_tools_is_restored_at_the_server(desk_port: int) -> None:
    session = OpenEnv(settings(desk_port))
    assert isinstance(session, Snapshots)
    session.reset(TASK)
    before = session.snapshot()
    then = session.step(assistant("I have no tool for this."))
    session.restore(before)
    again = session.step(assistant("I have no tool for this."))
    assert again == then
    assert again.tools is not None
    session.close()


def test_a_server_that_speaks_in_texts_gets_texts() -> None:
    said = TextObservationData.model_validate({"observation": {"text": "Hello.", "score": 0, "success": False}})
    assert said.observed().messages == (user("Hello."),)
    assert said.observed().tools is None


def test_an_older_servers_harness_is_understood() -> None:
    told = {"version": 1, "environment": "notes", "deterministic": True, "side_effects": False}
    harness = CapabilitiesData.model_validate({**told, "harness": {"reply": "text"}}).harness
    assert harness is not None
    assert harness.reply == "message"


def test_the_tools_of_a_plain_server_are_offered_and_called(till_port: int) -> None:
    session = OpenEnv(settings(till_port, tools=True, deterministic=True, harness={"reply": "message"}))
    task = Task(environment="openenv", task_id="pay ten")
    first = session.reset(task)
    assert [Tool.of(tool).name for tool in first.tools or ()] == ["add", "pay"]
    fingerprints = [session.fingerprint()]
    both = session.step(assistant(None, call("add", '{"amount": 4}', "call_1"), call("add", '{"amount": 6}', "call_2")))
    assert both.messages == (tool_result("The sum is 4.", "call_1"), tool_result("The sum is 10.", "call_2"))
    assert both.understood
    fingerprints.append(session.fingerprint())
    last = session.step(assistant(None, call("pay", "", "call_3"), call("add", '{"amount": 1}', "call_4")))
    assert [message.text for message in last.messages] == ['{"paid": true}', "the episode is over"]
    assert (last.score, last.done, last.success) == (1.0, True, True)
    fingerprints.append(session.fingerprint())
    assert len(set(fingerprints)) == 3
    assert session.reset(task) == first
    assert session.fingerprint() == fingerprints[0]
    session.close()


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("sub", "{}", "Unknown tool: sub"),
        ("add", "{}", "An amount is missing."),
        ("add", "{broken", "not valid JSON"),
    ],
)
def test_a_call_that_a_plain_server_cannot_execute_is_answered_by_its_id(
    till_port: int, name: str, arguments: str, reason: str
) -> None:
    session = OpenEnv(settings(till_port, tools=True))
    session.reset(Task(environment="openenv", task_id="pay ten"))
    fine = call("add", '{"amount": 1}', "call_1")
    answer = session.step(assistant(None, fine, call(name, arguments, "call_2")))
    assert not answer.understood
    assert [message.tool_call_id for message in answer.messages] == ["call_1", "call_2"]
    assert reason in answer.messages[1].text
    text = session.step(assistant("How much is it?"))
    assert not text.understood
    assert [message.role for message in text.messages] == ["user"]
    session.close()


def test_calls_to_a_server_whose_tools_are_not_called_are_answered(till_port: int) -> None:
    session = OpenEnv(settings(till_port))
    assert json.loads(session.reset(Task(environment="openenv", task_id="pay ten")).text) == {}
    answer = session.step(assistant(None, call("add", '{"amount": 1}', "call_1")))
    assert not answer.understood
    assert answer.messages[0].tool_call_id == "call_1"
    session.close()
