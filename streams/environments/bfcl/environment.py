"""The multi-turn tasks of the Berkeley Function Calling Leaderboard as an environment: a user, and tools that simulate.

Loaded by the sandbox worker through its entry point. All is the wheel's own: tasks, tools, answers and checker.
"""

import json
from dataclasses import dataclass, replace

from ratchet_client.events import VARIANT_MARK, Task
from ratchet_client.ids import content_id
from ratchet_client.messages import Message, Messages, Tools, assistant, user
from streams.environments.bfcl.scenarios import CATEGORIES, Scenario, fold_of, scenarios
from streams.environments.bfcl.simulation import Simulation, accepts
from streams.environments.environment import Capabilities, Observation, Restore
from streams.environments.harness import ChatHarness
from streams.environments.tool_answers import answer_calls
from streams.environments.tool_calls import Call, calling, canonical, render
from streams.environments.tool_definitions import Tool
from streams.errors import SandboxError

ENVIRONMENT = "bfcl"

# The categories are variants of the same scenarios. One of them in training would give away the others.
_FAMILY = "multi_turn"
_PLAYABLE = ("train", "dev")

SYSTEM_PROMPT = (
    "You work for a user by calling tools. Call them until there is nothing left to call, or what you need is missing; "
    "then reply with a short text to the user."
)

_OVER = "The conversation is over."

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

    @property
    def success(self) -> bool:
        return self.done and self.score == 1.0


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
        state = self._state
        if state.done:
            return Observation.answering(action, _OVER, state.score, True, state.success, understood=False)
        if not action.calls:
            return self._end_turn()
        answered = answer_calls(action, state.tools, state.simulation.execute)
        if answered.understood:
            *before, steps = state.played
            self._begun = replace(state, played=(*before, (*steps, answered.calls)))
        return self._observed(answered.messages, understood=answered.understood)

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

    def _observed(self, messages: Messages, *, tools: Tools | None = None, understood: bool = True) -> Observation:
        state = self._state
        return Observation(messages, state.score, state.done, state.success, understood, tools)


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
