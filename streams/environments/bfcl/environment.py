"""The multi-turn tasks of the Berkeley Function Calling Leaderboard as an environment: a user, and tools that simulate.

Loaded by the sandbox worker through its entry point. All is the wheel's own: tasks, tools, answers and checker.
"""

import json
from dataclasses import dataclass, replace

from jsonschema.exceptions import best_match

from streams.environments.bfcl.scenarios import CATEGORIES, Scenario, Turn, description, fold_of, scenarios, validator
from streams.environments.bfcl.simulation import Simulation, accepts
from streams.environments.environment import Capabilities, Observation, Restore, Tool
from streams.environments.harness import ChatHarness
from streams.environments.tool_calls import Call, canonical, parse, render
from streams.errors import SandboxError, ToolCallError
from streams.events import VARIANT_MARK, Task
from streams.ids import content_id

ENVIRONMENT = "bfcl"

# The categories are variants of the same scenarios. One of them in training would give away the others.
_FAMILY = "multi_turn"
_PLAYABLE = ("train", "dev")

SYSTEM_PROMPT = (
    "You work for a user by calling tools. Reply with a JSON array of calls and nothing else, such as: "
    '[{"name": "cd", "arguments": {"folder": "docs"}}]. You are then shown their results. When there is nothing left '
    "to call, or what you need is missing, reply with a short text to the user."
)

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

    An action is a JSON array of tool calls, answered with a JSON array of their results, or else a text to the user,
    who then says what comes next. Calls that are malformed, or not as their tool wants them, are not executed at all.

    The score is the share of turns, counted from the first, up to which the checker finds everything right; it changes
    at the end of a turn. Success is all of them right.
    """

    capabilities = Capabilities(
        restores=(Restore.SNAPSHOT, Restore.REPLAY, Restore.FORK),
        deterministic=True,
        side_effects=False,
        complete_fingerprint=True,
    )
    harness = ChatHarness(system_prompt=SYSTEM_PROMPT, max_steps=40, reply="text")

    def __init__(self) -> None:
        self._begun: _State | None = None

    def reset(self, task: Task) -> Observation:
        """Begin the task. The text describes the tools, then comes what the user says first."""
        scenario = _scenario(task)
        self._begun = _State(task.task_id, scenario, Simulation(scenario))
        return self._observed(_said(scenario.turns[0]))

    def step(self, action: str) -> Observation:
        if self._state.done:
            return self._refused("The conversation is over.")
        try:
            calls = self._checked(parse(action))
        except ToolCallError as error:
            return self._refused(str(error))
        return self._call(calls) if calls else self._end_turn()

    def tools(self) -> tuple[Tool, ...]:
        return self._state.tools

    def canonical(self, action: str) -> str:
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
        tasks: dict[str, Task] = {}
        variant = game.removeprefix(f"{_FAMILY}_")
        for number, scenario in enumerate(scenarios(game)):
            if fold_of(number) == fold and scenario.allows_its_gold():
                task = Task(environment=ENVIRONMENT, task_id=f"{_FAMILY}/{fold}/{number}{VARIANT_MARK}{variant}")
                tasks.setdefault(_said(scenario.turns[0]), task)
        return tuple(tasks.values())

    def demonstration(self, task: Task) -> list[str]:
        """The wheel's answer: one call at a time, and a text at the end of each turn."""
        actions = []
        for turn in _scenario(task).turns:
            actions += [render([call]) for call in turn.gold]
            actions.append(_FINISHED if turn.gold else _UNANSWERABLE)
        return actions

    def close(self) -> None:
        self._begun = None

    @property
    def _state(self) -> _State:
        if self._begun is None:
            raise SandboxError("something was asked of a session that has no task. Reset it first.")
        return self._begun

    def _checked(self, calls: tuple[Call, ...]) -> tuple[Call, ...]:
        """`calls`, if every one is of a known tool and has the arguments that it wants."""
        known = {tool.name for tool in self._state.tools}
        for call in calls:
            if call.name not in known:
                raise ToolCallError(f"There is no tool {call.name!r}.")
            if error := best_match(validator(call.name).iter_errors(call.arguments)):
                at = f" at {'.'.join(map(str, error.path))}" if error.path else ""
                raise ToolCallError(f"The arguments of {call.name} are not as it wants them{at}: {error.message}.")
        return calls

    def _call(self, calls: tuple[Call, ...]) -> Observation:
        *before, steps = self._state.played
        results = [self._state.simulation.execute(call) for call in calls]
        self._begun = replace(self._state, played=(*before, (*steps, calls)))
        return self._observed(json.dumps(results, ensure_ascii=False))

    def _end_turn(self) -> Observation:
        state = self._state
        # After the first mistake the checker says nothing of later turns.
        all_right = state.right == state.turn and accepts(state.scenario, state.played)
        right = state.right + all_right
        if len(state.played) == len(state.scenario.turns):
            self._begun = replace(state, right=right, done=True)
            return self._observed("The conversation is over.")
        self._begun = replace(state, right=right, played=(*state.played, ()))
        return self._observed(_said(state.scenario.turns[self._begun.turn]))

    def _refused(self, reason: str) -> Observation:
        return self._observed(json.dumps({"error": reason}, ensure_ascii=False), understood=False)

    def _observed(self, text: str, *, understood: bool = True) -> Observation:
        state = self._state
        return Observation(text, state.score, state.done, state.done and state.score == 1.0, understood)


def _said(turn: Turn) -> str:
    if not turn.new_tools:
        return f"User: {turn.user}"
    return f"Tools:\n{description(turn.new_tools)}\n\nUser: {turn.user}"


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
