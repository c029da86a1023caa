"""Answers to the calls of an action, as the contract wants them: one for each call, by its id.

Environments with tools need nothing else of a call than a function that executes it.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pydantic import JsonValue

from ratchet_client.messages import Message, Messages, ToolCall, tool_result
from streams.environments.tool_calls import Call, read
from streams.environments.tool_definitions import Tool
from streams.errors import ToolCallError

_NOT_EXECUTED = "Not executed, because another call of the same message is at fault."


@dataclass(frozen=True, slots=True)
class Answered:
    """The answers to an action's calls. `calls` are those that were executed: all of them, or none."""

    messages: Messages
    calls: tuple[Call, ...]

    @property
    def understood(self) -> bool:
        return bool(self.calls)


def answer_calls(action: Message, tools: Iterable[Tool], execute: Callable[[Call], JsonValue]) -> Answered:
    """Execute the calls of `action` one after the other, if every one is of one of `tools` and as its schema has it.

    If not, none is executed, and each answer says why. A `ToolCallError` that `execute` raises is the answer to its
    call: the error of a tool is a result like any other.
    """
    known = {tool.name: tool for tool in tools}
    calls: list[Call] = []
    faults: dict[int, str] = {}
    for place, called in enumerate(action.calls):
        try:
            calls.append(_checked(called, known))
        except ToolCallError as error:
            faults[place] = str(error)
    if faults:
        results: Iterable[JsonValue] = ({"error": faults.get(n, _NOT_EXECUTED)} for n in range(len(action.calls)))
        calls = []
    else:
        results = (_result(call, execute) for call in calls)
    answers = zip(results, action.calls, strict=True)
    return Answered(tuple(tool_result(_as_text(result), called.id) for result, called in answers), tuple(calls))


def _checked(called: ToolCall, known: dict[str, Tool]) -> Call:
    call = read(called)
    tool = known.get(call.name)
    if tool is None:
        raise ToolCallError(f"There is no tool {call.name!r}.")
    if fault := tool.fault(call.arguments):
        raise ToolCallError(f"The arguments of {call.name} are not as it wants them: {fault}.")
    return call


def _result(call: Call, execute: Callable[[Call], JsonValue]) -> JsonValue:
    try:
        return execute(call)
    except ToolCallError as error:
        return {"error": str(error)}


def _as_text(result: JsonValue) -> str:
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
