"""The files of a toolbox, `toolbox.toml` and `tasks.jsonl`, read and checked."""

import tomllib
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

from ratchet_client.events import Identity
from ratchet_client.messages import Message, Messages, Record, assistant, user
from ratchet_client.settings import FrozenModel
from streams.environments.written_actions import WrittenAction, as_messages
from streams.errors import SandboxError
from streams.task_ids import task_of

DEFINITION = "toolbox.toml"
TASKS = "tasks.jsonl"
RESERVED_FOLD = "test"
UNSOLVABLE_FOLD = "unsolvable"

_FINISHED = "Done."

Command: TypeAlias = Annotated[tuple[str, ...], Field(min_length=1)]
FunctionName: TypeAlias = Annotated[str, Field(pattern=r"^\w+:\w+$")]
Program: TypeAlias = Command | FunctionName
"""A command line, or a function as `module:function`, of a file beside `toolbox.toml`."""


class ToolboxTask(Record):
    """A line of `tasks.jsonl`.

    `opening` is what the agent is asked: the user's text, or messages. `setup` makes the state that the task begins
    in, out of the state folder: a folder that is copied over it, or a program that is run in it. `data` is for setup
    and check alone. `now` takes the place of the toolbox's. The `demonstration` solves the task: each action is a text
    to the user, a call, several calls in one message, or an assistant's message. A task that is not `solvable`, which
    the check never finds solved, is in the fold `unsolvable`, and no other is.
    """

    task_id: Identity
    fold: Annotated[str, Field(min_length=1)]
    opening: str | Messages
    setup: Command | str | None = None
    data: JsonValue = None
    now: str = ""
    demonstration: tuple[WrittenAction, ...] | None = None
    solvable: bool = True

    @model_validator(mode="after")
    def _unsolvable_apart(self) -> Self:
        if self.solvable is (self.fold == UNSOLVABLE_FOLD):
            raise ValueError(f'tasks with "solvable": false, and no others, are in the fold {UNSOLVABLE_FOLD!r}')
        if not self.solvable and self.demonstration is not None:
            raise ValueError("a task that cannot be solved has no demonstration")
        return self

    @field_validator("opening")
    @classmethod
    def _asks_something(cls, opening: str | Messages) -> str | Messages:
        if not opening or any(not isinstance(each, str) and each.role in ("assistant", "tool") for each in opening):
            raise ValueError("an opening is a text, or messages of the roles system, developer and user")
        return opening

    @property
    def first_messages(self) -> Messages:
        return (user(self.opening),) if isinstance(self.opening, str) else self.opening

    def demonstrated(self) -> list[Message]:
        """The demonstration as actions, which end with a text to the user. Raises `SandboxError` if there is none."""
        if self.demonstration is None:
            raise SandboxError(f"the task {self.task_id!r} has no demonstration. Write one into {TASKS}.")
        actions = as_messages(self.demonstration, self.task_id)
        return actions if actions and not actions[-1].calls else [*actions, assistant(_FINISHED)]


class ToolboxFile(FrozenModel):
    """`toolbox.toml`."""

    model_config = ConfigDict(populate_by_name=True)

    name: str = Field(pattern=r"^[\w.-]+$", description="The name of its suite of tasks.")
    mcp: Command | None = Field(default=None, description="Command line of an MCP server on standard input and output.")
    functions: str | None = Field(default=None, description="A Python file whose public functions are the tools.")
    check: Program = Field(description="Looks at the state when an episode is over: was the task solved?")
    state: str = Field(
        default="state", description="The folder that every task's state is a copy of; it may be absent."
    )
    initial_state: str | None = Field(
        default=None,
        description="The file of the state folder that the state is in which an episode's task names; none: no state "
        "can be named.",
    )
    system_prompt: str = Field(default="", description="What the agent's first message says; empty: there is none.")
    generate: Program | None = Field(
        default=None,
        description="Makes tasks beyond those of tasks.jsonl, like those of a fold: of a seed always the same.",
    )
    max_steps: int = Field(default=20, ge=1, description="Actions after which an episode ends.")
    max_tokens: int = Field(default=512, ge=1, description="Longest reply of a policy, in tokens.")
    stateless: bool = Field(
        default=False,
        description="Whether the MCP server keeps nothing in memory from one call to the next. It is then not started "
        "again for each state, and serves all sessions of a sandbox: the state folder's content changes under it. "
        "Judged episodes of one side of a gate share sandboxes too: no tool may run what a policy writes.",
    )
    deterministic: bool = Field(
        default=True, description="Whether the same task and actions always give the same answers."
    )
    results: Literal["text", "structured"] = Field(
        default="text",
        description="What an agent is shown of an MCP server's result: its texts, or its structured content as JSON.",
    )
    now: str = Field(default="", description="The time that tasks play at, as TOOLBOX_NOW; RFC 3339.")
    variables: dict[str, str] = Field(default={}, description="Environment variables for tools, setups and checks.")

    @field_validator("initial_state")
    @classmethod
    def _lies_in_the_state(cls, file: str | None) -> str | None:
        if file is not None and (Path(file).is_absolute() or not {"", "..", "."}.isdisjoint(file.split("/"))):
            raise ValueError("it is a path within the state folder, such as shop.sqlite")
        return file

    @field_validator("now", mode="before")
    @classmethod
    def _as_text(cls, now: object) -> object:
        return now.isoformat() if isinstance(now, datetime) else now

    @model_validator(mode="after")
    def _one_kind_of_tools(self) -> Self:
        if (self.mcp is None) == (self.functions is None):
            raise ValueError('name the tools by one of mcp = ["python", "server.py"] and functions = "tools.py"')
        if self.stateless and self.mcp is None:
            raise ValueError("stateless says something of an MCP server, and there is none")
        return self


class ToolboxDefinition(FrozenModel):
    """A toolbox: its folder, its settings and its tasks in the order of their lines."""

    folder: Path
    file: ToolboxFile
    tasks: tuple[ToolboxTask, ...]

    @cached_property
    def by_id(self) -> Mapping[str, ToolboxTask]:
        return {task.task_id: task for task in self.tasks}

    @cached_property
    def by_opening(self) -> Mapping[str, tuple[ToolboxTask, ...]]:
        """The tasks by what `task_of` makes of their openings, with the toolbox's system prompt and without it.

        By that hash a recorded episode is known that names no task.
        """
        found: dict[str, list[ToolboxTask]] = {}
        instructed = (Message(role="system", content=self.file.system_prompt),) if self.file.system_prompt else ()
        for task in self.tasks:
            first = task.first_messages
            for name in {task_of(first), task_of((*instructed, *first))}:
                found.setdefault(name, []).append(task)
        return {name: tuple(tasks) for name, tasks in found.items()}

    def task(self, name: str) -> ToolboxTask:
        """The task with that id, or with an opening of that hash. Raises `SandboxError`; reserved ones are not told."""
        found = (self.by_id[name],) if name in self.by_id else self.by_opening.get(name, ())
        if len(found) > 1:
            raise SandboxError(
                f"{len(found)} tasks of the toolbox {self.folder} begin alike, among them {found[0].task_id!r} and "
                f"{found[1].task_id!r}, and an episode is of one of them. Have the agent name its task in the header "
                "x-ratchet-task."
            )
        if not found or found[0].fold == RESERVED_FOLD:
            raise SandboxError(
                f"{name!r} is not a task of the toolbox {self.folder}, or a reserved one. "
                f"Name one of its {TASKS}, in another fold than {RESERVED_FOLD!r}, or begin as one of them does."
            )
        return found[0]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises `SandboxError` where a file is missing or wrong; it names the file and the line."""
        try:
            file = ToolboxFile.model_validate(tomllib.loads(_text(folder / DEFINITION)))
        except (tomllib.TOMLDecodeError, ValidationError) as error:
            raise SandboxError(f"{folder / DEFINITION} is wrong: {_reason(error)}. Correct it.") from error
        tasks = []
        for number, line in enumerate(_text(folder / TASKS).splitlines(), start=1):
            try:
                tasks += [ToolboxTask.model_validate_json(line)] if line.strip() else []
            except ValidationError as error:
                raise SandboxError(
                    f"{folder / TASKS}, line {number}, is wrong: {_reason(error)}. Correct it."
                ) from error
        doubled = [name for name, times in Counter(task.task_id for task in tasks).items() if times > 1]
        if doubled:
            raise SandboxError(
                f"several tasks of {folder / TASKS} are called {doubled[0]!r}. Give each its own task_id."
            )
        return cls(folder=folder, file=file, tasks=tuple(tasks))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SandboxError(
            f"{path} cannot be read: {error}. A toolbox is a folder with {DEFINITION} and {TASKS}."
        ) from error


def _reason(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
