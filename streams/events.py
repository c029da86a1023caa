"""The contracts on the wire: what agents publish on `ratchet.events`, and what Ratchet publishes for itself.

Agents import nothing of Ratchet but this module and, if they like, `streams.producer`. Unknown fields are refused, so
that a typo is a dead-letter record and not a silent loss.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import AwareDatetime, ConfigDict, Field, FiniteFloat, TypeAdapter, model_validator

from streams.ids import content_id, uuid7
from streams.settings import FrozenModel

# The store keeps numbers in 32 and 64 bits; a larger one must be a dead-letter record and not the end of the writer.
Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**31)]
# Names are logged and joined by; a longer one is refused.
Name: TypeAlias = Annotated[str, Field(max_length=512)]
Identity: TypeAlias = Annotated[str, Field(min_length=1, max_length=512)]
Seed: TypeAlias = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Record(FrozenModel):
    """Frozen, strict about its fields, and compact as JSON."""

    def to_json(self) -> bytes:
        return self.model_dump_json(exclude_none=True, by_alias=True).encode()


def _is_none(value: object) -> bool:
    return value is None


# Written only where there is some: bytes, hashes and ids of everything without reasoning stay as they were.
Reasoning: TypeAlias = Annotated[str | None, Field(exclude_if=_is_none)]


class Message(Record):
    """One message of a chat, as the OpenAI API has it.

    `reasoning_content` is what the model thought before it wrote `content`; only an assistant's message has any.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    reasoning_content: Reasoning = None

    @model_validator(mode="after")
    def _only_assistants_reason(self) -> Self:
        if self.reasoning_content is not None and self.role != "assistant":
            raise ValueError("only an assistant's message has reasoning_content: leave it out of the others")
        return self

    def spoken(self) -> "Message":
        """The message without its reasoning, as most APIs want it back in later turns."""
        return self if self.reasoning_content is None else self.model_copy(update={"reasoning_content": None})


def spoken(messages: Iterable[Message]) -> tuple[Message, ...]:
    """The messages without reasoning: chats that differ in nothing else are the same conversation."""
    return tuple(message.spoken() for message in messages)


# What follows it in a task's id names a variant of the task. Variants are on one side of the holdout.
VARIANT_MARK = "~"


class Task(Record):
    """The task that an episode attempts. `task_id` decides alone whether it is held out of training."""

    environment: Name
    task_id: Identity
    seed: Seed = 0


class Actor(Record):
    """The agent that chose the action; `adapter` is the served model's name when a policy did."""

    kind: Literal["policy", "expert", "human"]
    adapter: Name | None = None


class Envelope(Record):
    schema_version: Literal[1] = Field(default=1, alias="schema")
    event_id: Identity = Field(default_factory=uuid7)

    model_config = ConfigDict(populate_by_name=True)


def _now() -> datetime:
    return datetime.now(UTC)


class StepEvent(Envelope):
    """One step of an episode: the exact messages the actor saw, what it did, and what came back.

    `observation` is the content of the user message that the next state ends with. `flag` is the reason, if the
    producer knows one, for which nothing must be learned from the episode.
    """

    kind: Literal["step"] = "step"
    episode_id: Identity
    step: Count
    agent: Name
    principal: Name
    recorded_at: AwareDatetime = Field(default_factory=_now)
    task: Task
    messages: tuple[Message, ...] = Field(min_length=1)
    action: Message
    observation: str
    done: bool = False
    actor: Actor
    flag: Name | None = Field(default=None, exclude_if=_is_none)


class OutcomeEvent(Envelope):
    """A verifier's verdict on an episode."""

    kind: Literal["outcome"] = "outcome"
    episode_id: Identity
    verifier: Name
    success: bool
    score: FiniteFloat
    evidence: dict[str, Any] = Field(default_factory=dict)
    recorded_at: AwareDatetime = Field(default_factory=_now)


class RetractionEvent(Envelope):
    """A principal's data must leave every later training set."""

    kind: Literal["retraction"] = "retraction"
    principal: Name
    reason: str
    recorded_at: AwareDatetime = Field(default_factory=_now)


Event: TypeAlias = Annotated[StepEvent | OutcomeEvent | RetractionEvent, Field(discriminator="kind")]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)


# Where an alternative comes from: the policy, the environment's list, or a change to the trusted tool call.
Source: TypeAlias = Literal["policy", "valid_actions", "mutation"]


class RecordedStep(Record):
    """An action at one state of an episode, and what came back when it happened.

    `reasoning_content` is what the actor thought before the action.
    """

    action: str
    observation: str
    reasoning_content: Reasoning = None


MESSAGES: TypeAdapter[tuple[Message, ...]] = TypeAdapter(tuple[Message, ...])
STEPS: TypeAdapter[tuple[RecordedStep, ...]] = TypeAdapter(tuple[RecordedStep, ...])


class BranchRequest(Envelope):
    """An episode whose states are to be restored: to branch it if it is trusted, to recover from it if it failed."""

    kind: Literal["branch_request"] = "branch_request"
    episode_id: str
    task: Task
    verdict: Literal["trusted", "failed"] = "trusted"
    opening: tuple[Message, ...]
    steps: tuple[RecordedStep, ...] = Field(min_length=1)

    def state(self, step: int) -> tuple[Message, ...]:
        """The messages the actor saw before its action number `step`; earlier actions are without their reasoning."""
        messages = list(self.opening)
        for recorded in self.steps[:step]:
            messages.append(Message(role="assistant", content=recorded.action))
            messages.append(Message(role="user", content=recorded.observation))
        return tuple(messages)

    def up_to(self, step: int) -> "BranchRequest":
        """The same episode, ending with its step number `step`."""
        return self.model_copy(update={"steps": self.steps[: step + 1]})


class Alternative(Record):
    """An action the trusted actor did not take, and what the sandbox answered."""

    action: str
    observation: str
    done: bool
    score: float
    source: Source


# How exact a restored state is: a copy of it, a replay whose every observation was compared, or none.
Fidelity: TypeAlias = Literal["sandbox_exact", "sandbox_replayed", "dropped"]


class Failure(Record):
    """An action that the sandbox did not survive: it took too long, or the process died of it, twice."""

    action: str
    failure_kind: Literal["timeout", "died"] = Field(alias="fate")

    model_config = ConfigDict(populate_by_name=True)


class BranchResult(Envelope):
    """The result of one state of a branch request. `requested` counts the alternatives proposed for it.

    A state that could not be restored exactly yields no alternatives: `fidelity` is `dropped` and `reason` says why.
    """

    kind: Literal["branch_result"] = "branch_result"
    request_id: str
    episode_id: str
    task: Task
    step: Count
    requested: Count
    fidelity: Fidelity
    reason: str = ""
    policy: str = ""
    alternatives: tuple[Alternative, ...] = ()
    failures: tuple[Failure, ...] = Field(default=(), alias="fatalities")

    @staticmethod
    def id_for(request_id: str, step: int) -> str:
        """A request that is worked twice gives results of the same id, which the store keeps once."""
        return content_id("branch_result", request_id, str(step))


class Recovery(Record):
    """A verified success that begins in a failed episode: from its state number `left_at` on, `steps` were taken.

    `source` is where the first of them comes from; the rest are the policy's.
    """

    left_at: Count
    steps: tuple[RecordedStep, ...] = Field(min_length=1)
    score: float
    source: Source


class RecoveryResult(Envelope):
    """The result of a branch request for a failed episode.

    `attempts` continuations took `sandbox_steps` steps, replays not counted. When the episode could not be restored,
    `fidelity` is `dropped` and `reason` says why.
    """

    kind: Literal["recovery_result"] = "recovery_result"
    request_id: str
    episode_id: str
    task: Task
    attempts: Count
    sandbox_steps: Count
    fidelity: Fidelity
    reason: str = ""
    policy: str = ""
    recoveries: tuple[Recovery, ...] = ()

    @staticmethod
    def id_for(request_id: str) -> str:
        """A request that is worked twice gives results of the same id, which the store keeps once."""
        return content_id("recovery_result", request_id)


Result: TypeAlias = Annotated[BranchResult | RecoveryResult, Field(discriminator="kind")]
RESULT: TypeAdapter[Result] = TypeAdapter(Result)
