"""Conversion between messages and the actions and observations of a plain OpenEnv server, by the operator's settings.

`environment.py` reads every server so that does not offer the extension's own words.
"""

import json

from pydantic import JsonValue, TypeAdapter, ValidationError

from ratchet_client.events import Observed, Task
from ratchet_client.messages import Messages, Tools, user
from streams.environments.environment import Observation
from streams.environments.openenv.protocol import Data, ObservationData
from streams.environments.openenv.settings import OpenEnvSettings
from streams.environments.tool_calls import Call
from streams.environments.tool_definitions import Tool
from streams.errors import SandboxError

_OBJECT: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])

_MESSAGES: TypeAdapter[Messages] = TypeAdapter(Observed)

RESERVED_FOLD = "test"

LIST_TOOLS: dict[str, JsonValue] = {"type": "list_tools"}

# Of a call of which the server could make nothing. Its other errors are what a tool answers.
_NOT_UNDERSTOOD = ("tool_not_found", "invalid_args")


class _ToolData(Data):
    name: str
    description: str = ""
    input_schema: dict[str, JsonValue]


class _ToolsData(Data):
    tools: tuple[_ToolData, ...]


class _CallError(Data):
    error_type: str = ""
    message: str = ""


class _CalledData(Data):
    result: JsonValue = None
    error: _CallError | None = None


def mapped_reset(task: Task, settings: OpenEnvSettings) -> dict[str, JsonValue]:
    """The parameters of the reset. Raises `SandboxError` for a task's id that is none or names the reserved fold."""
    if settings.task_field:
        return {settings.task_field: task.task_id, "seed": task.seed}
    try:
        named = _OBJECT.validate_json(task.task_id)
    except ValidationError as error:
        raise SandboxError(
            f"the task {task.task_id[:100]!r} is not a JSON object of the reset's parameters, as the settings' empty "
            "task_field says. Name the parameter that takes the id, or write the parameters as the task's id."
        ) from error
    if RESERVED_FOLD in named.values():
        raise SandboxError(f"the fold {RESERVED_FOLD!r} is reserved, and the task's id names it. Use another.")
    return {"seed": task.seed, **named}


def mapped_action(text: str, settings: OpenEnvSettings) -> dict[str, JsonValue] | None:
    """The action that `text` is, or None when it is none."""
    if settings.action_field:
        return {settings.action_field: text}
    try:
        return _OBJECT.validate_json(text)
    except ValidationError:
        return None


def call_action(call: Call) -> dict[str, JsonValue]:
    """The action that is one call of a tool."""
    return {"type": "call_tool", "tool_name": call.name, "arguments": dict(call.arguments)}


def mapped_tools(data: ObservationData) -> Tools:
    """The tools in the answer to `LIST_TOOLS`. Raises `SandboxError` where it has none."""
    try:
        listed = _ToolsData.model_validate(data.observation).tools
    except ValidationError as error:
        raise SandboxError(
            f"the OpenEnv server lists no tools: {error}. Set the settings' tools to false, if it has none."
        ) from error
    return tuple(Tool(tool.name, tool.description, tool.input_schema).definition for tool in listed)


def mapped_result(data: ObservationData) -> tuple[str, bool]:
    """The answer to a call as text, and whether the server understood the call. Raises `SandboxError` for no answer."""
    try:
        called = _CalledData.model_validate(data.observation)
    except ValidationError as error:
        raise SandboxError(f"the OpenEnv server answered a call with what is none: {error}") from error
    if called.error is not None:
        return _as_text({"error": called.error.message}), called.error.error_type not in _NOT_UNDERSTOOD
    match called.result:
        case {"content": [*parts]}:  # of the Model Context Protocol
            return "\n".join(map(_part, parts)), True
    return _as_text(called.result), True


def mapped_observation(data: ObservationData, score: float, settings: OpenEnvSettings) -> Observation:
    """`score` is the score so far. Raises `SandboxError` for an observation without the settings' `text_field`."""
    score = mapped_score(data, score, settings)
    return Observation(_messages(data, settings.text_field), score, data.done, success=score >= 1.0)


def mapped_score(data: ObservationData, score: float, settings: OpenEnvSettings) -> float:
    """The score after an answer; `score` is the one before it."""
    earned = (data.reward or 0.0) / settings.full_reward
    return min(1.0, max(0.0, score + earned if settings.reward == "gain" else earned))


def _messages(data: ObservationData, field: str) -> Messages:
    """What the policy reads of an observation: the messages that `field` is, or its text as a user's message."""
    if not field:
        return (user(_as_text({name: value for name, value in data.observation.items() if name != "metadata"})),)
    said = _field(data.observation, field)
    try:
        return _MESSAGES.validate_python(said) if isinstance(said, list) else (user(_as_text(said)),)
    except ValidationError:
        return (user(_as_text(said)),)


def _field(observation: dict[str, JsonValue], field: str) -> JsonValue:
    found: JsonValue = observation
    for name in field.split("."):
        if not isinstance(found, dict) or name not in found:
            there = sorted(found) if isinstance(found, dict) else _as_text(found)[:100]
            raise SandboxError(
                f"the OpenEnv server's observation has no field {field!r}: where {name!r} should be, it has {there}. "
                "Correct the settings' text_field."
            )
        found = found[name]
    return found


def _part(part: JsonValue) -> str:
    match part:
        case {"type": "text", "text": str(text)}:
            return text
    return _as_text(part)


def _as_text(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
