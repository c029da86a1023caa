"""From a conversation to the events of an episode. Their ids follow from what they say, so that the store has them
once, however often a file is imported."""

import sys
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue, ValidationError

from ratchet_client.events import Actor, OutcomeEvent, StepEvent, Task
from ratchet_client.ids import content_id
from ratchet_client.messages import MESSAGES, TOOLS
from streams.errors import ExchangeError, UnnamedError
from streams.exchange.conversation import Conversation, JsonObject, first_fault

# An outcome is told as true or false, or as a number.
_VERDICT = "it is neither true, false nor a finite number"


@dataclass(frozen=True, slots=True)
class Told:
    """The place where the outcome of a conversation is told: for all of them as `success`, or in a `field` of each.

    Without either it is what the format itself says, if anything. A field is a path of names with dots between them. A
    number is a success where it is `success_at` or more.
    """

    success: bool | None = None
    field: str | None = None
    success_at: float = 1.0


NOT_TOLD = Told()


@dataclass(frozen=True, slots=True)
class Attribution:
    """Whose episodes the conversations become.

    `environment` and `agent` are None where each document names its own. `task_field` is the field with a task's id.
    """

    principal: str
    environment: str | None = None
    agent: str | None = None
    actor: Literal["policy", "expert", "human"] = "expert"
    task_field: str | None = None
    verifier: str = "import"
    told: Told = NOT_TOLD

    def fields_in(self, document: JsonObject) -> frozenset[str]:
        """The fields that are named here and that `document` has, with every field around them."""
        paths = (path for path in (self.task_field, self.told.field) if path is not None and _has(document, path))
        return frozenset(path.rsplit(".", cut)[0] for path in paths for cut in range(path.count(".") + 1))


@dataclass(frozen=True, slots=True)
class ImportedEpisode:
    """The events of one conversation; `outcome` is None where none is told."""

    episode_id: str
    steps: tuple[StepEvent, ...]
    outcome: OutcomeEvent | None

    @property
    def events(self) -> tuple[StepEvent | OutcomeEvent, ...]:
        """All of them, in the order of their publishing."""
        return self.steps if self.outcome is None else (*self.steps, self.outcome)


def episode_of(
    conversation: Conversation, document: JsonObject, attribution: Attribution, source: JsonObject
) -> ImportedEpisode:
    """The events that say what `conversation` says, which was read from `document`.

    The evidence of the outcome is `source`. Without a task's id in it, conversations that begin alike are attempts at
    the same task. Raises `ExchangeError` where the outcome or the task's id is wrong, `UnnamedError` where the agent or
    the environment has no name.
    """
    facts = conversation.facts
    agent = _named(attribution.agent or facts.agent, "agent")
    try:
        task = Task(
            environment=_named(attribution.environment or facts.environment, "environment"),
            task_id=_task_id(conversation, document, attribution.task_field),
            seed=facts.seed or 0,
            state=facts.state,
        )
        actor = Actor(kind=attribution.actor, adapter=facts.adapter if attribution.actor == "policy" else None)
        episode_id = _episode_id(conversation, agent, attribution.principal, task, actor)
        steps = tuple(_steps(conversation, episode_id, agent, attribution.principal, task, actor))
        return ImportedEpisode(episode_id, steps, _outcome(conversation, document, attribution, episode_id, source))
    except ValidationError as error:
        raise ExchangeError(first_fault(error)) from error


def _episode_id(conversation: Conversation, agent: str, principal: str, task: Task, actor: Actor) -> str:
    """The id of an episode that says this. What was imported with other options is another one."""
    offered = [step.tools for step in conversation.steps]
    return content_id(
        "import",
        *(agent, principal, actor.to_json().decode(), task.to_json().decode(), conversation.identity),
        *(str(len(conversation.opening)), *(message.to_json().decode() for message in conversation.messages)),
        *("" if tools is None else TOOLS.dump_json(tools).decode() for tools in offered),
    )


def _steps(
    conversation: Conversation, episode_id: str, agent: str, principal: str, task: Task, actor: Actor
) -> list[StepEvent]:
    events = []
    messages = list(conversation.opening)
    for number, step in enumerate(conversation.steps):
        at = conversation.recorded_at[number] if conversation.recorded_at else None
        events.append(
            StepEvent(
                event_id=content_id(episode_id, "step", str(number)),
                episode_id=episode_id,
                step=number,
                agent=agent,
                principal=principal,
                task=task,
                tools=conversation.tools(number),
                messages=tuple(messages),
                action=step.action,
                observation=step.observation,
                done=number == len(conversation.steps) - 1,
                actor=actor,
                flag=conversation.flag,
                **({} if at is None else {"recorded_at": at}),
            )
        )
        messages += (step.action, *step.observation)
    return events


def _outcome(
    conversation: Conversation, document: JsonObject, attribution: Attribution, episode_id: str, source: JsonObject
) -> OutcomeEvent | None:
    verdict = _verdict(conversation, document, attribution.told)
    if verdict is None:
        return None
    success, score = verdict
    return OutcomeEvent(
        event_id=content_id(episode_id, "outcome", attribution.verifier, str(success), repr(score)),
        episode_id=episode_id,
        verifier=attribution.verifier,
        success=success,
        score=score,
        evidence=dict(source),
    )


def _verdict(conversation: Conversation, document: JsonObject, told: Told) -> tuple[bool, float] | None:
    if told.success is not None:
        return told.success, float(told.success)
    facts = conversation.facts
    if told.field is None:
        value: JsonValue = facts.score if facts.success is None else facts.success
    else:
        value = field_of(document, told.field)
    if value is None:
        return None
    if isinstance(value, bool):
        return value, float(value) if facts.score is None else facts.score
    if isinstance(value, int | float) and abs(value) <= sys.float_info.max:
        return value >= told.success_at, float(value)
    raise ExchangeError(f"{told.field}: {_VERDICT}")


def field_of(document: JsonObject, path: str) -> JsonValue:
    """The value of a field, whose path has dots; None where it is missing."""
    value: JsonValue = dict(document)
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _has(document: JsonObject, path: str) -> bool:
    around, _, name = path.rpartition(".")
    value = field_of(document, around) if around else dict(document)
    return isinstance(value, dict) and name in value


def _task_id(conversation: Conversation, document: JsonObject, field: str | None) -> str:
    if field is not None:
        value = field_of(document, field)
        if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
            raise ExchangeError(f"{field}: it is not the id of a task, a text or a whole number")
        return str(value)
    if conversation.facts.task_id is not None:
        return conversation.facts.task_id
    return "imported/" + content_id(MESSAGES.dump_json(conversation.opening).decode())[:16]


def _named(name: str | None, what: str) -> str:
    if name is None:
        raise UnnamedError(what)
    return name
