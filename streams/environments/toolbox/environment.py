"""A toolbox as an environment: a team's own tools on a copy of their state. Loaded by the sandbox worker.

A session has a state folder of its own, which setup makes and tools change. All that is to come depends on it, so a
snapshot is a copy of it. `docs/environments.md` says how a toolbox is written.
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, JsonValue

from ratchet_client.events import Task
from ratchet_client.ids import content_id
from ratchet_client.messages import MESSAGES, Message, Messages, ToolCall, Tools, tool_result
from streams.environments.environment import Capabilities, Observation, Restore
from streams.environments.harness import ChatHarness
from streams.environments.tool_calls import read
from streams.environments.tool_definitions import Tool
from streams.environments.toolbox.definition import RESERVED_FOLD, UNSOLVABLE_FOLD, ToolboxDefinition, ToolboxTask
from streams.environments.toolbox.generated import generated_id, generated_seed, generated_task
from streams.environments.toolbox.initial_states import put_state
from streams.environments.toolbox.programs import Place, run_check, run_program
from streams.environments.toolbox.settings import ToolboxSettings
from streams.environments.toolbox.state import FolderState
from streams.environments.toolbox.tools import Toolset
from streams.errors import SandboxError, ToolCallError

ENVIRONMENT = "toolbox"

_OVER = "The conversation is over."

# By folder and settings: the sessions of a process share what is costly to start.
_toolsets: dict[tuple[str, str], Toolset] = {}


@dataclass(frozen=True, slots=True)
class _Played:
    """The part of a session's state that is not in its folder. `said` are its messages, the task's opening first."""

    task: ToolboxTask
    variables: Mapping[str, str]
    said: Messages
    steps: int = 0
    done: bool = False
    success: bool = False
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class _Snapshot:
    played: _Played
    state: FolderState


class Toolbox:
    """One session. A task's id is that of a line of `tasks.jsonl`, the hash of its opening, or one that is generated.

    Each call of a message is executed, in their order; one that cannot be is answered with an error and the others are
    executed all the same. A text without calls ends the episode, as the step limit does: then the check says whether
    the task is solved, and nothing more is said.
    """

    settings: ClassVar[type[BaseModel]] = ToolboxSettings
    # What a toolbox says of itself comes with its folder.
    capabilities = Capabilities((Restore.SNAPSHOT,), deterministic=False, side_effects=False)

    def __init__(self, settings: ToolboxSettings) -> None:
        self._definition = definition = ToolboxDefinition.read(settings.folder)
        file = definition.file
        self.capabilities = Capabilities(
            restores=(Restore.SNAPSHOT, *((Restore.REPLAY,) if file.deterministic else ())),
            deterministic=file.deterministic,
            side_effects=False,
            initial_states=settings.states is not None and file.initial_state is not None,
        )
        self._states = settings.states
        self.harness = ChatHarness(
            system_prompt=file.system_prompt,
            max_steps=file.max_steps,
            reply="message",
            max_tokens=settings.max_tokens or file.max_tokens,
            stop=(),
        )
        self._toolset = _toolset(definition)
        self._home = Path(tempfile.mkdtemp(prefix="toolbox-"))
        self._state = self._home / "state"
        self._state.mkdir()
        self._now: _Played | None = None
        self._known = FolderState({})

    def reset(self, task: Task) -> Observation:
        """Begin the task: its opening, and the tools."""
        self._leave()
        # A generated task is the same from its id alone.
        seed = None if task.task_id in self._definition.by_id else generated_seed(task.task_id)
        played = self._begin(self._task(task), task.seed if seed is None else seed, task.state)
        offered = tuple(tool.definition for tool in self._toolset.offered(self._place(played)))
        self._now = played
        return self._observed(played.task.first_messages, tools=offered)

    def step(self, action: Message) -> Observation:
        played = self._playing
        if played.done:
            return Observation.answering(action, _OVER, played.score, True, played.success, understood=False)
        answers, understood = self._answers(action, self._place(played))
        steps = played.steps + 1
        played = replace(played, said=(*played.said, action, *answers), steps=steps)
        if not action.calls or steps >= self._definition.file.max_steps:
            played = self._judged(played)
        self._now = played
        return self._observed(answers, understood=understood)

    def fingerprint(self) -> str:
        """A hash of the task, the number of steps and what the state folder holds."""
        played = self._playing
        return content_id(played.task.task_id, str(played.steps), str(played.done), self._read().digest())

    def snapshot(self) -> object:
        played = self._playing
        return _Snapshot(played, self._read())

    def restore(self, snapshot: object) -> None:
        if not isinstance(snapshot, _Snapshot):
            raise SandboxError(f"{type(snapshot).__name__} is not a snapshot of a toolbox. Restore what it gave.")
        self._leave()
        snapshot.state.write(self._state)
        self._now, self._known = snapshot.played, snapshot.state

    def games(self) -> tuple[str, ...]:
        return (self._definition.file.name,)

    def task_list(self, game: str, fold: str) -> tuple[Task, ...]:
        """The tasks of a fold in the order of their lines."""
        self._check_fold(game, fold)
        return self._of_fold(fold)

    def unsolvable(self, game: str) -> tuple[Task, ...]:
        """The tasks with `"solvable": false`."""
        return self._of_fold(UNSOLVABLE_FOLD) if game in self.games() else ()

    def generate(self, game: str, fold: str, first: int, count: int) -> tuple[Task, ...]:
        """Tasks whose seeds are their numbers; each is made when it is begun. None without a program that makes them.

        The first is made now, so that a program that fails is found out before a gate is played.
        """
        self._check_fold(game, fold)
        if self._definition.file.generate is None or not count:
            return ()
        ids = [generated_id(game, fold, seed) for seed in range(first, first + count)]
        generated_task(self._definition, ids[0])
        return tuple(Task(environment=ENVIRONMENT, task_id=task_id, seed=first + n) for n, task_id in enumerate(ids))

    def _check_fold(self, game: str, fold: str) -> None:
        folds = {task.fold for task in self._definition.tasks} - {RESERVED_FOLD, UNSOLVABLE_FOLD}
        if game not in self.games() or fold not in folds:
            raise SandboxError(
                f"the fold {fold!r} of {game!r} is reserved or unknown. The toolbox {self._definition.folder} is the "
                f"suite {self._definition.file.name!r} with the folds {', '.join(sorted(folds)) or 'of no task'}."
            )

    def demonstration(self, task: Task) -> list[Message]:
        return self._task(task).demonstrated()

    def close(self) -> None:
        self._leave()
        shutil.rmtree(self._home, ignore_errors=True)

    @property
    def _playing(self) -> _Played:
        if self._now is None:
            raise SandboxError("something was asked of a session that has no task. Reset it first.")
        return self._now

    def _of_fold(self, fold: str) -> tuple[Task, ...]:
        return tuple(
            Task(environment=ENVIRONMENT, task_id=task.task_id) for task in self._definition.tasks if task.fold == fold
        )

    def _task(self, task: Task) -> ToolboxTask:
        generated = None
        if task.task_id not in self._definition.by_id:
            generated = generated_task(self._definition, task.task_id)
        return generated or self._definition.task(task.task_id)

    def _begin(self, task: ToolboxTask, seed: int, state: str | None) -> _Played:
        """The task in its first state: a copy of the state folder, and what setup makes of it.

        With `state`, the recorded state of that name takes the place of its file, and nothing is set up.
        """
        folder, file = self._definition.folder, self._definition.file
        now = task.now or file.now
        variables = {**file.variables, "TOOLBOX_SEED": str(seed), **({"TOOLBOX_NOW": now} if now else {})}
        played = _Played(task, variables, task.first_messages)
        if "state" in file.model_fields_set and not (folder / file.state).is_dir():
            raise SandboxError(f"the state {file.state!r} of the toolbox is not a folder in {folder}. Make it.")
        FolderState.read(folder / file.state).write(self._state)
        if state is not None:
            # The session asks for none where these are not set.
            assert self._states is not None
            assert file.initial_state is not None
            put_state(self._states, state, self._state / file.initial_state)
            return played
        if isinstance(task.setup, str) and ":" not in task.setup:
            if not (folder / task.setup).is_dir():
                raise SandboxError(
                    f"the setup {task.setup!r} of {task.task_id!r} is not a folder in {folder}. Make it."
                )
            FolderState.read(folder / task.setup).over(self._state)
        elif task.setup is not None:
            run_program(task.setup, folder, self._place(played), {"task": _told(task)})
        return played

    def _place(self, played: _Played) -> Place:
        return Place(self._state, played.variables)

    def _answers(self, action: Message, place: Place) -> tuple[Messages, bool]:
        """One message for each call, and whether all could be made something of."""
        tools = {tool.name: tool for tool in self._toolset.offered(place)} if action.calls else {}
        answered = [self._answer(call, tools, place) for call in action.calls]
        return tuple(message for message, _ in answered), all(understood for _, understood in answered)

    def _answer(self, called: ToolCall, tools: Mapping[str, Tool], place: Place) -> tuple[Message, bool]:
        try:
            call = read(called)
            if call.name not in tools:
                raise ToolCallError(f"There is no tool {call.name!r}.")
        except ToolCallError as error:
            return tool_result(f"Error: {error}", called.id), False
        result = self._toolset.call(call, place)
        return tool_result(result.text, called.id), result.understood

    def _judged(self, played: _Played) -> _Played:
        """The episode at its end, as the check sees it."""
        self._toolset.release(self._place(played))
        said: list[JsonValue] = MESSAGES.dump_python(
            self.harness.opening(played.said), mode="json", exclude_none=True, by_alias=True
        )
        told: dict[str, JsonValue] = {"task": _told(played.task), "messages": said}
        result = run_check(self._definition.file.check, self._definition.folder, self._place(played), told)
        return replace(played, done=True, success=result.success, score=result.share)

    def _observed(self, messages: Messages, *, tools: Tools | None = None, understood: bool = True) -> Observation:
        played = self._playing
        return Observation(messages, played.score, played.done, played.success, understood, tools)

    def _read(self) -> FolderState:
        self._known = FolderState.read(self._state, self._known)
        return self._known

    def _leave(self) -> None:
        """End the task that is played, and what still works on its state."""
        if self._now is not None:
            self._toolset.release(self._place(self._now))
        self._now = None


def _toolset(definition: ToolboxDefinition) -> Toolset:
    key = (str(definition.folder), definition.file.model_dump_json())
    if key not in _toolsets:
        # Each kind needs a library that takes long to import.
        if definition.file.functions is not None:
            from streams.environments.toolbox.functions import FunctionTools

            _toolsets[key] = FunctionTools(definition.folder / definition.file.functions)
        else:
            from streams.environments.toolbox.mcp_tools import McpTools

            _toolsets[key] = McpTools(definition)
    return _toolsets[key]


def _told(task: ToolboxTask) -> JsonValue:
    told: JsonValue = task.model_dump(mode="json", exclude={"demonstration"}, exclude_none=True)
    return told
