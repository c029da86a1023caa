"""The multi-turn tasks of the Berkeley Function Calling Leaderboard as an environment: a user, and tools that simulate.

Loaded by the sandbox worker through its entry point. All is the wheel's own: tasks, tools, answers and checker.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import JsonValue

from streams.environments.bfcl.scenarios import CATEGORIES, Scenario, fold_of, scenarios
from streams.environments.bfcl.simulation import Simulation, accepts
from streams.environments.environment import Capabilities, Observation, Restore
from streams.environments.harness import ChatHarness
from streams.environments.tool_calls import Call, calling, canonical, read, render
from streams.environments.tool_definitions import Tool
from streams.errors import SandboxError, ToolCallError
from streams.events import VARIANT_MARK, Task
from streams.ids import content_id
from streams.messages import Message, Messages, ToolCall, Tools, assistant, tool_result, user

ENVIRONMENT = "bfcl"

# The categories are variants of the same scenarios. One of them in training would give away the others.
_FAMILY = "multi_turn"
_PLAYABLE = ("train", "dev")

SYSTEM_PROMPT = (
    "You work for a user by calling tools. Call them until there is nothing left to call, or what you need is missing; "
    "then reply with a short text to the user."
)

_OVER = "The conversation is over."
_NOT_EXECUTED = "Not executed, because another call of the same message is at fault."

_FINISHED = "Done."
_UNANSWERABLE = "I cannot do this: a tool or a detail that I need is missing."


@dataclass(frozen=True, slots=True)
class _State:
    """The state of a session.

    `played` has the steps of each turn so far; `right` counts turns that were found right.
    """

    task_id: str
    scenario: Scenario
    simulation: Simulation
    played: tuple[tuple[tuple[Call, ...], ...], ...] = ((),)
    right: int = 0
    done: bool = False

    @property
    def turn(self) -> int:
        return len(self.played) - 1

    @property
    def tools(self) -> tuple[Tool, ...]:
        return self.scenario.tools(self.turn)

    @property
    def score(self) -> float:
        return self.right / len(self.scenario.turns)


class BFCL:
    """One session. A task's id is `multi_turn/<fold>/<number>~<variant>`, such as `multi_turn/train/17~base`.

    An action is a message with tool calls, each of which is answered by a tool's message, or else a text to the user,
    who then says what comes next. If one call is malformed or not as its tool wants it, no call of the message is
    executed: the answer to it says why, and the answers to the others say so.

    The score is the share of turns, counted from the first, up to which the checker finds everything right; it changes
    at the end of a turn. Success is all of them right.
    """

    capabilities = Capabilities(
        restores=(Restore.SNAPSHOT, Restore.REPLAY, Restore.FORK),
        deterministic=True,
        side_effects=False,
        complete_fingerprint=True,
    )
    harness = ChatHarness(system_prompt=SYSTEM_PROMPT, max_steps=40, reply="message", max_tokens=256, stop=())

    def __init__(self) -> None:
        self._begun: _State | None = None

    def reset(self, task: Task) -> Observation:
        """Begin the task: what the user says first, and the tools."""
        scenario = _scenario(task)
        self._begun = _State(task.task_id, scenario, Simulation(scenario))
        return self._observed((user(scenario.turns[0].user),), tools=self._offered())

    def step(self, action: Message) -> Observation:
        if self._state.done:
            return self._refused(action, dict.fromkeys(range(len(action.calls)), _OVER))
        if not action.calls:
            return self._end_turn()
        faults: dict[int, str] = {}
        calls = []
        for place, call in enumerate(action.calls):
            try:
                calls.append(self._checked(call))
            except ToolCallError as error:
                faults[place] = str(error)
        return self._refused(action, faults) if faults else self._call(action, tuple(calls))

    def canonical(self, action: Message) -> str:
        return canonical(action)

    def fingerprint(self) -> str:
        """A hash of all that anything to come depends on: the APIs' state, and the calls so far, which are judged."""
        state = self._state
        played = json.dumps([[render(step) for step in steps] for steps in state.played])
        return content_id(state.task_id, str(state.done), played, state.simulation.state())

    def snapshot(self) -> object:
        return replace(self._state, simulation=self._state.simulation.copy())

    def restore(self, snapshot: object) -> None:
        if not isinstance(snapshot, _State):
            raise SandboxError(f"{type(snapshot).__name__} is not a snapshot of BFCL. Restore what it gave.")
        self._begun = replace(snapshot, simulation=snapshot.simulation.copy())

    def games(self) -> tuple[str, ...]:
        return CATEGORIES

    def task_list(self, game: str, fold: str) -> tuple[Task, ...]:
        """The tasks of a fold in the order of their numbers.

        Left out are those that begin like an earlier one, and those whose answer breaks the documentation of its tools.
        """
        if game not in CATEGORIES or fold not in _PLAYABLE:
            raise SandboxError(f"the fold {fold!r} of {game!r} is reserved or unknown. Use train or dev.")
        tasks: dict[tuple[str, ...], Task] = {}
        variant = game.removeprefix(f"{_FAMILY}_")
        for number, scenario in enumerate(scenarios(game)):
            if fold_of(number) == fold and scenario.allows_its_gold():
                task = Task(environment=ENVIRONMENT, task_id=f"{_FAMILY}/{fold}/{number}{VARIANT_MARK}{variant}")
                tasks.setdefault((scenario.turns[0].user, *(tool.name for tool in scenario.tools(0))), task)
        return tuple(tasks.values())

    def demonstration(self, task: Task) -> list[Message]:
        """The wheel's answer: one call at a time, and a text at the end of each turn."""
        actions: list[Message] = []
        for turn in _scenario(task).turns:
            for call in turn.gold:
                actions.append(calling([call], f"{task.task_id} {len(actions)}"))
            actions.append(assistant(_FINISHED if turn.gold else _UNANSWERABLE))
        return actions

    def close(self) -> None:
        self._begun = None

    @property
    def _state(self) -> _State:
        if self._begun is None:
            raise SandboxError("something was asked of a session that has no task. Reset it first.")
        return self._begun

    def _offered(self) -> Tools:
        return tuple(tool.definition for tool in self._state.tools)

    def _checked(self, called: ToolCall) -> Call:
        """The call, if it is of a known tool and has the arguments that it wants."""
        call = read(called)
        tool = next((tool for tool in self._state.tools if tool.name == call.name), None)
        if tool is None:
            raise ToolCallError(f"There is no tool {call.name!r}.")
        if fault := tool.fault(call.arguments):
            raise ToolCallError(f"The arguments of {call.name} are not as it wants them: {fault}.")
        return call

    def _call(self, action: Message, calls: tuple[Call, ...]) -> Observation:
        *before, steps = self._state.played
        results = [self._state.simulation.execute(call) for call in calls]
        self._begun = replace(self._state, played=(*before, (*steps, calls)))
        answers = zip(action.calls, results, strict=True)
        return self._observed(tuple(tool_result(_shown(result), call.id) for call, result in answers))

    def _end_turn(self) -> Observation:
        state = self._state
        # After the first mistake the checker says nothing of later turns.
        all_right = state.right == state.turn and accepts(state.scenario, state.played)
        right = state.right + all_right
        if len(state.played) == len(state.scenario.turns):
            self._begun = replace(state, right=right, done=True)
            return self._observed((user(_OVER),))
        self._begun = replace(state, right=right, played=(*state.played, ()))
        turn = state.scenario.turns[self._begun.turn]
        return self._observed((user(turn.user),), tools=self._offered() if turn.new_tools else None)

    def _refused(self, action: Message, faults: Mapping[int, str]) -> Observation:
        """Answers to an action of which nothing was done. `faults` are those of its calls, by their places."""
        answers = tuple(
            tool_result(_shown({"error": faults.get(place, _NOT_EXECUTED)}), call.id)
            for place, call in enumerate(action.calls)
        )
        return self._observed(answers or (user(_OVER),), understood=False)

    def _observed(self, messages: Messages, *, tools: Tools | None = None, understood: bool = True) -> Observation:
        state = self._state
        success = state.done and state.score == 1.0
        return Observation(messages, state.score, state.done, success, understood, tools)


def _shown(result: JsonValue) -> str:
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


def _scenario(task: Task) -> Scenario:
    name, _, variant = task.task_id.partition(VARIANT_MARK)
    family, fold, number = (*name.split("/"), "", "", "")[:3]
    category = f"{family}_{variant}"
    if name.count("/") != 2 or family != _FAMILY or category not in CATEGORIES:
        raise SandboxError(
            f"{task.task_id!r} is not a task of BFCL. Name it {_FAMILY}/<fold>/<number>{VARIANT_MARK}<variant>, "
            f"as one of the games {', '.join(CATEGORIES)} lists it."
        )
    # By its spelling: a task must not have a second name, which another split could be drawn for.
    numbers = {str(place): place for place in range(len(scenarios(category)))}
    if fold not in _PLAYABLE or number not in numbers or fold_of(numbers[number]) != fold:
        raise SandboxError(f"the task {task.task_id!r} is reserved or does not exist. Use train or dev.")
    return scenarios(category)[numbers[number]]
