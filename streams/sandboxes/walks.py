"""Trajectories that the conformance suite plays: an environment's demonstrations, with steps aside."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from ratchet_client.events import Task
from ratchet_client.messages import Message, Messages, Tools, assistant, user
from streams.environments.environment import Observation
from streams.environments.tool_call_mutations import mutations, texts_of
from streams.errors import BrokenPromiseError, ToolCallError
from streams.sandboxes.pool import SandboxSession


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
    session: SandboxSession, task: Task, demonstration: Sequence[Message], most: int, generator: random.Random
) -> Walk:
    """Play `task` for at most `most` steps, half of them aside where there are actions other than the demonstrated."""
    plan = list(demonstration)
    observations: list[Observation] = [await session.reset(task)]
    fingerprints = [await session.fingerprint()]
    actions: list[Message] = []
    tools: Tools = ()
    said: list[Message] = []
    while len(actions) < most and not observations[-1].done:
        tools = tools if observations[-1].tools is None else observations[-1].tools
        said += observations[-1].messages
        aside = await _aside(session, plan, tools, texts_of(said), generator)
        action = plan.pop(0) if plan and (aside is None or generator.random() < 0.5) else aside
        if action is None:
            break
        observations.append(await session.step(action))
        fingerprints.append(await session.fingerprint())
        actions.append(action)
    return Walk(task, tuple(actions), tuple(observations), tuple(fingerprints))


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


def compare(expected: Sequence[str], seen: Sequence[str], what: str) -> None:
    """Raises `BrokenPromiseError` at the first difference."""
    for number, (wanted, got) in enumerate(zip(expected, seen, strict=True)):
        if wanted != got:
            raise BrokenPromiseError(f"{what}: number {number} was {wanted[:200]!r} and then {got[:200]!r}")
