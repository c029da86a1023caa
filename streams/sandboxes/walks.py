"""Trajectories that the conformance suite plays, with steps aside, and comparisons that tell where they differ."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from ratchet_client.events import Task
from ratchet_client.messages import Message, Messages, Tools, assistant, user
from streams.environments.environment import Observation
from streams.environments.tool_call_mutations import mutations, texts_of
from streams.errors import BrokenPromiseError, SandboxError, ToolCallError
from streams.sandboxes.pool import SandboxSession

NOT_AN_ACTION = "\u2014 no action of any environment \u2014"

_LONGEST = 120
_EXCERPT = 300
_BEFORE = 60
_DOTS = "\u2026"


@dataclass(frozen=True, slots=True)
class Walk:
    """A trajectory as it was played: one observation and one fingerprint more than actions."""

    task: Task
    actions: tuple[Message, ...]
    observations: tuple[Observation, ...]
    fingerprints: tuple[str, ...]

    @property
    def states(self) -> int:
        return len(self.observations)

    @property
    def shown(self) -> list[str]:
        return [shown(observation) for observation in self.observations]

    @property
    def messages(self) -> list[Messages]:
        return [observation.messages for observation in self.observations]


async def wander(
    session: SandboxSession, task: Task, plan: Sequence[Message], most: int, generator: random.Random
) -> Walk:
    """Play `task` for at most `most` steps, half of them aside where there are actions other than the planned.

    Raises `BrokenPromiseError` with the actions that led there where a step is not answered.
    """
    left = list(plan)
    observations: list[Observation] = [await _begun(session, task)]
    fingerprints = [await session.fingerprint()]
    actions: list[Message] = []
    tools: Tools = ()
    said: list[Message] = []
    while len(actions) < most and not observations[-1].done:
        tools = tools if observations[-1].tools is None else observations[-1].tools
        said += observations[-1].messages
        aside = await _aside(session, left, tools, texts_of(said), generator)
        action = left.pop(0) if left and (aside is None or generator.random() < 0.5) else aside
        if action is None:
            break
        actions.append(action)
        observations.append(await answered(session, action, path(task, actions)))
        fingerprints.append(await session.fingerprint())
    return Walk(task, tuple(actions), tuple(observations), tuple(fingerprints))


async def _begun(session: SandboxSession, task: Task) -> Observation:
    try:
        return await session.reset(task)
    except SandboxError as error:
        raise BrokenPromiseError(str(error), path(task, ())) from error


async def answered(session: SandboxSession, action: Message, tried: str) -> Observation:
    """The answer to one action. Raises `BrokenPromiseError` with `tried` where there is none."""
    try:
        return await session.step(action)
    except SandboxError as error:
        raise BrokenPromiseError(str(error), tried, "An answer to the last action.") from error


async def _aside(
    session: SandboxSession, plan: Sequence[Message], tools: Tools, context: str, generator: random.Random
) -> Message | None:
    """An action off the demonstration, if there is one."""
    if valid := await session.valid_actions():
        return assistant(generator.choice(valid))
    if plan and tools:
        try:
            changed = mutations(plan[0], tools, context, generator, 1)
        except ToolCallError:
            return None
        return changed[0] if changed else None
    return None


def shown(observation: Observation) -> str:
    """All that a policy sees of an observation: the text of a game, or else the messages and the tools."""
    if observation.tools is None and observation.messages == (user(observation.text),):
        return observation.text
    messages = [message.model_dump(mode="json", exclude_none=True) for message in observation.messages]
    return json.dumps([messages, observation.tools], ensure_ascii=False)


def falsified(messages: Messages) -> Messages:
    """The messages with another end."""
    *before, last = messages or (user(""),)
    return (*before, last.model_copy(update={"content": f"{last.text} And then it rains."}))


def compare(expected: str, seen: str, tried: str) -> None:
    """Raises `BrokenPromiseError` with the places at which both begin to differ."""
    if expected != seen:
        first = next((at for at, pair in enumerate(zip(expected, seen, strict=False)) if pair[0] != pair[1]), None)
        begin = max(0, (min(len(expected), len(seen)) if first is None else first) - _BEFORE)
        raise BrokenPromiseError(_excerpt(seen, begin), tried, _excerpt(expected, begin))


def compare_each(
    expected: Sequence[str], seen: Sequence[str], task: Task, actions: Sequence[Message], what: str
) -> None:
    """Compare what came after the reset and after each of `actions`; tells the way to the first difference."""
    for number, (wanted, got) in enumerate(zip(expected, seen, strict=True)):
        compare(wanted, got, f"{path(task, actions[:number])} ({what})")


def path(task: Task, actions: Sequence[Message]) -> str:
    """The way to a state, for people.

    >>> path(Task(environment="desk", task_id="desk/1"), [assistant("Hello.")])
    "task desk/1: reset, then 'Hello.'"
    """
    return f"task {task.task_id}: reset" + "".join(f", then {spelled(action)}" for action in actions)


def spelled(action: Message) -> str:
    """An action in one line: its calls, or else its text."""
    calls = [f"{call.function.name}({_cut(call.function.arguments)})" for call in action.calls if call.function]
    return " and ".join(calls) if calls else repr(_cut(action.text))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}{_DOTS}"


def _excerpt(text: str, begin: int) -> str:
    """At most `_EXCERPT` characters from `begin` on; dots stand for what is left out."""
    cut = text[begin : begin + _EXCERPT]
    return repr(f"{_DOTS if begin else ''}{cut}{_DOTS if begin + _EXCERPT < len(text) else ''}")
