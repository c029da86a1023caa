"""Actions as people write them into files: texts, calls, several calls at once, or whole messages of the assistant.

A toolbox's demonstrations are written so, and the files of `ratchet environment check --actions`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field, JsonValue, ValidationError

from ratchet_client.errors import ConfigurationError
from ratchet_client.events import Identity, Seed
from ratchet_client.messages import Message, Record, assistant
from streams.environments.tool_calls import Call, calling


class WrittenCall(Record):
    """A call of a tool by its name."""

    name: str
    arguments: dict[str, JsonValue] = Field(default_factory=dict)


def _of_the_assistant(
    action: "str | WrittenCall | tuple[WrittenCall, ...] | Message",
) -> "str | WrittenCall | tuple[WrittenCall, ...] | Message":
    if isinstance(action, Message) and action.role != "assistant":
        raise ValueError("the assistant's messages only are actions; the tools answer by themselves")
    return action


WrittenAction: TypeAlias = Annotated[
    str | WrittenCall | tuple[WrittenCall, ...] | Message, AfterValidator(_of_the_assistant)
]


def as_messages(actions: Sequence[WrittenAction], origin: str) -> list[Message]:
    """The actions as messages. The same calls of the same `origin` always have the same ids.

    >>> as_messages(("Hello.", WrittenCall(name="ls")), "task 1")[1].calls[0].function.name
    'ls'
    """
    return [_as_message(action, f"{origin} {place}") for place, action in enumerate(actions)]


def _as_message(action: WrittenAction, origin: str) -> Message:
    match action:
        case str():
            return assistant(action)
        case Message():
            return action
        case WrittenCall():
            action = (action,)
    return calling([Call(each.name, each.arguments) for each in action], origin)


class WrittenTask(Record):
    """A line of such a file: a task by its id and seed, and the actions to play in it."""

    task_id: Identity
    seed: Seed = 0
    actions: tuple[WrittenAction, ...]


def read_tasks(path: Path) -> tuple[WrittenTask, ...]:
    """Read a file of tasks as JSON lines. Raises `ConfigurationError` for one that cannot be read or has none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}. Name a file of JSON lines.") from error
    tasks = []
    for number, line in enumerate(lines, start=1):
        try:
            tasks += [WrittenTask.model_validate_json(line)] if line.strip() else []
        except ValidationError as error:
            raise ConfigurationError(
                f"{path}, line {number}, is not a task with its actions: {error}. "
                'Write {"task_id": …, "actions": […]}.'
            ) from error
    if not tasks:
        raise ConfigurationError(f"{path} has no tasks. Write one a line.")
    return tuple(tasks)
