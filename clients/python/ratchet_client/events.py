"""The contract on the wire: what agents publish on `ratchet.events`, by the `producer` or by themselves.

Unknown fields of an event are refused, so that a typo is a dead-letter record and not a silent loss; those inside a
message are kept.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AwareDatetime, ConfigDict, Field, FiniteFloat, TypeAdapter

from ratchet_client.event_fields import Action as Action
from ratchet_client.event_fields import Count, OfferedTools, is_empty, is_none
from ratchet_client.event_fields import Identity as Identity
from ratchet_client.event_fields import Name as Name
from ratchet_client.event_fields import Observed as Observed
from ratchet_client.event_fields import Seed as Seed
from ratchet_client.event_fields import StateReference as StateReference
from ratchet_client.ids import uuid7
from ratchet_client.messages import ContentPart as ContentPart
from ratchet_client.messages import FunctionCall as FunctionCall
from ratchet_client.messages import Message as Message
from ratchet_client.messages import Messages as Messages
from ratchet_client.messages import Record
from ratchet_client.messages import ToolCall as ToolCall

# The version of the format: a consumer of another one knows that it cannot read it.
SCHEMA_VERSION: Final = 2
# What follows it in a task's id names a variant of the task. Variants are on one side of the holdout.
VARIANT_MARK = "~"


def family(task_id: str) -> str:
    """The part of the id that all variants of the task share: to have met one of them is to have met them all.

    >>> family("multi_turn/train/17~miss_func")
    'multi_turn/train/17'
    """
    return task_id.partition(VARIANT_MARK)[0]


class Task(Record):
    """The task that an episode attempts. `task_id` decides alone whether it is held out of training.

    `state` names the state that the episode began in by its content, where it is another than the task's own.
    """

    environment: Name
    task_id: Identity
    seed: Seed = 0
    state: StateReference | None = Field(default=None, exclude_if=is_none)


class Actor(Record):
    """The agent that chose the action; `adapter` is the served model's name when a policy did."""

    kind: Literal["policy", "expert", "human"]
    adapter: Name | None = None


class Envelope(Record):
    """`schema` 1, in which actions and observations were texts, is still read."""

    schema_version: Literal[1, 2] = Field(default=SCHEMA_VERSION, alias="schema")
    event_id: Identity = Field(default_factory=uuid7)

    model_config = ConfigDict(populate_by_name=True)


def _now() -> datetime:
    return datetime.now(UTC)


# Who played an episode: an agent in production, or Ratchet itself in a sandbox between cycles. Left out of the JSON of
# production's events.
Origin: TypeAlias = Literal["production", "practice"]
_Origin: TypeAlias = Annotated[Origin, Field(exclude_if=lambda origin: origin == "production")]


class Advice(Record):
    """Advice that a practising policy had in its system message, which `messages` are shown without.

    It is a reflection on an attempt that failed, or the lesson of a success and a failure, about the state `step`.
    """

    kind: Literal["reflection", "lesson"]
    text: str = Field(min_length=1)
    step: Count = 0


class StepEvent(Envelope):
    """One step of an episode: the exact messages the actor saw, what it did, and what came back.

    `tools` are those that the actor was offered. `observation` has the messages that follow the action in the next
    state: the results of its tool calls, the user's next words, or both; none where nothing came back. `flag` is the
    reason, if the producer knows one, for which nothing must be learned from the episode. `receipt` is that of the
    captured call that the step was, by which feedback names it.

    `log_probabilities` are those of the action's tokens when they were sampled, in nats, the end of turn included;
    none where they are not known. Only Ratchet may say that an episode is `practice`, and signs that as its operator.
    `advice` is practice's alone; of other episodes it is not stored.
    """

    kind: Literal["step"] = "step"
    episode_id: Identity
    step: Count
    agent: Name
    principal: Name
    recorded_at: AwareDatetime = Field(default_factory=_now)
    task: Task
    tools: OfferedTools = ()
    messages: Messages = Field(min_length=1)
    action: Action
    observation: Observed
    done: bool = False
    actor: Actor
    flag: Name | None = Field(default=None, exclude_if=is_none)
    receipt: Identity | None = Field(default=None, exclude_if=is_none)
    origin: _Origin = "production"
    log_probabilities: tuple[FiniteFloat, ...] = Field(default=(), exclude_if=is_empty)
    advice: Advice | None = Field(default=None, exclude_if=is_none)


class OutcomeEvent(Envelope):
    """A verifier's verdict on an episode."""

    kind: Literal["outcome"] = "outcome"
    episode_id: Identity
    verifier: Name
    success: bool
    score: FiniteFloat
    evidence: dict[str, Any] = Field(default_factory=dict)
    recorded_at: AwareDatetime = Field(default_factory=_now)
    origin: _Origin = "production"


class RetractionEvent(Envelope):
    """A principal's data must leave every later training set."""

    kind: Literal["retraction"] = "retraction"
    principal: Name
    reason: str
    recorded_at: AwareDatetime = Field(default_factory=_now)


Event: TypeAlias = Annotated[StepEvent | OutcomeEvent | RetractionEvent, Field(discriminator="kind")]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
