"""One scenario of BFCL, and how it is played."""

from pydantic import JsonValue

from ratchet_client.events import Task
from ratchet_client.messages import Message, Tools
from streams.environments.bfcl.environment import BFCL
from streams.environments.environment import Observation
from streams.environments.tool_calls import Call, calling
from streams.environments.tool_definitions import Tool

DIFF = Task(environment="bfcl", task_id="multi_turn/dev/13~base")
"""Its answer: cd, tail, the end of the turn, diff, the end."""


def call(name: str, /, **arguments: JsonValue) -> Message:
    return calling([Call(name, arguments)], "test")


def play(session: BFCL, task: Task, actions: list[Message]) -> list[Observation]:
    return [session.reset(task), *(session.step(action) for action in actions)]


def names(tools: Tools | None) -> set[str]:
    return {Tool.of(definition).name for definition in tools or ()}
