"""A conversation as it is exchanged: the messages, the tools, and what is known of the episode it was or becomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import ConfigDict, JsonValue, ValidationError

from ratchet_client.messages import Message, Messages, Tools
from ratchet_client.settings import FrozenModel
from streams.branch_events import RecordedStep, tools_at, with_changes
from streams.errors import ExchangeError

NOT_LEARNED = "its file says that an action in it must not be learned from"

JsonObject = Mapping[str, JsonValue]


class Facts(FrozenModel):
    """Ratchet's own facts about an episode, besides its messages; its files have it under the name `ratchet`.

    `opening` counts the messages before the first action. `tools` are those from an action's number on, where they
    change in the course of the episode. Facts that an older or a newer version does not know are passed over.
    """

    model_config = ConfigDict(extra="ignore")

    episode_id: str | None = None
    agent: str | None = None
    environment: str | None = None
    task_id: str | None = None
    seed: int | None = None
    state: str | None = None
    actor: Literal["policy", "expert", "human"] | None = None
    adapter: str | None = None
    split: str | None = None
    success: bool | None = None
    score: float | None = None
    opening: int | None = None
    tools: dict[int, Tools] | None = None

    def to_json(self) -> dict[str, JsonValue]:
        return self.model_dump(mode="json", exclude_none=True)


NOTHING_KNOWN = Facts()


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation. `identity` is its own name in its file, empty where it has none.

    `flag` is the reason for which nothing must be learned from it. `recorded_at` has the time of each step, None where
    it is not known. `left_out` names the fields of the document that Ratchet has no place for, `of_policies` those that
    it keeps of policies alone. `warning` says why something may have been overlooked.
    """

    opening: Messages
    steps: tuple[RecordedStep, ...]
    facts: Facts = NOTHING_KNOWN
    identity: str = ""
    flag: str | None = None
    recorded_at: tuple[datetime | None, ...] = ()
    left_out: frozenset[str] = frozenset()
    of_policies: frozenset[str] = frozenset()
    warning: str = ""

    @property
    def messages(self) -> Messages:
        """All messages, in their order."""
        messages = list(self.opening)
        for step in self.steps:
            messages += (step.action, *step.observation)
        return tuple(messages)

    @property
    def offered(self) -> Tools:
        """Every tool that was offered at any step, once."""
        offered: list[dict[str, JsonValue]] = []
        for step in self.steps:
            offered += (tool for tool in step.tools or () if tool not in offered)
        return tuple(offered)

    @property
    def changes(self) -> dict[int, Tools] | None:
        """The tools from an action's number on; None where `offered` are there from the beginning to the end."""
        changes = {number: step.tools for number, step in enumerate(self.steps) if step.tools is not None}
        return None if changes in ({}, {0: self.offered}) else changes

    def tools(self, step: int) -> Tools:
        """The tools offered at step `step`."""
        return tools_at(self.steps, step)


@dataclass(frozen=True, slots=True)
class Said:
    """A message of a document. `learned` is false where it must not be learned from; `at` is when it was said."""

    message: Message
    learned: bool = True
    at: datetime | None = None


def conversation_of(
    said: Sequence[Said],
    tools: Tools,
    facts: Facts = NOTHING_KNOWN,
    *,
    identity: str = "",
    left_out: frozenset[str] = frozenset(),
) -> Conversation:
    """Every assistant's message is an action, what follows it up to the next one is its observation.

    Those before the first that may be learned from belong to the opening, as does the first message of all; several in
    a row are actions that nothing was observed after. `facts` take precedence over that. Raises `ExchangeError` where
    nothing is left to learn from.
    """
    first = _first_action(said) if facts.opening is None else facts.opening
    if not 0 < first < len(said) or said[first].message.role != "assistant":
        raise ExchangeError(
            "messages: there is no assistant's message to learn from: it needs at least one message before it, and "
            "must not be exempt from learning"
        )
    actions = [number for number in range(first, len(said)) if said[number].message.role == "assistant"]
    ends = (*actions[1:], len(said))
    by_step = facts.tools or {0: tools}
    offered = tools_of_steps(by_step, len(actions))
    steps = tuple(
        RecordedStep(
            action=said[at].message,
            observation=tuple(one.message for one in said[at + 1 : end]),
            tools=changed,
        )
        for at, end, changed in zip(actions, ends, with_changes(offered), strict=True)
    )
    return Conversation(
        opening=tuple(one.message for one in said[:first]),
        steps=steps,
        facts=facts,
        identity=identity,
        flag=None if all(said[at].learned for at in actions) else NOT_LEARNED,
        recorded_at=tuple(said[at].at for at in actions),
        left_out=left_out,
    )


def tools_of_steps(changes: Mapping[int, Tools], count: int) -> list[Tools]:
    """The tools offered at each of so many steps."""
    offered: list[Tools] = []
    for number in range(count):
        offered.append(changes.get(number, offered[-1] if offered else ()))
    return offered


def first_fault(error: ValidationError) -> str:
    """The first thing that is wrong with a document, and where in it."""
    fault = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in fault["loc"])
    return f"{place}: {fault['msg']}" if place else fault["msg"]


def _first_action(said: Sequence[Said]) -> int:
    found = (at for at, one in enumerate(said) if at and one.learned and one.message.role == "assistant")
    return next(found, 0)
