"""The contracts on the wire: what agents publish on `ratchet.events`, and what Ratchet publishes for itself.

Agents import nothing of Ratchet but this module and, if they like, `streams.producer`. Unknown fields of an event are
refused, so that a typo is a dead-letter record and not a silent loss; those inside a message are kept.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AwareDatetime, ConfigDict, Field, FiniteFloat, TypeAdapter, model_validator

from ratchet_client.event_fields import Action as Action
from ratchet_client.event_fields import ChangedTools, Count, OfferedTools, ReasoningKept, is_empty, is_none
from ratchet_client.event_fields import Identity as Identity
from ratchet_client.event_fields import Name as Name
from ratchet_client.event_fields import Observed as Observed
from ratchet_client.event_fields import Seed as Seed
from ratchet_client.event_fields import StateReference as StateReference
from ratchet_client.ids import content_id, uuid7
from ratchet_client.messages import ContentPart as ContentPart
from ratchet_client.messages import FunctionCall as FunctionCall
from ratchet_client.messages import Message as Message
from ratchet_client.messages import Messages as Messages
from ratchet_client.messages import Record, Tools
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


# Where an alternative comes from: the policy, the environment's list, or a change to the trusted tool call.
Source: TypeAlias = Literal["policy", "valid_actions", "mutation"]


class RecordedStep(Record):
    """An action at one state of an episode, and what came back when it happened.

    `reasoning_kept` says that the agent sent the action back with its reasoning, as models want it that reason between
    their tool calls; most send it without.
    """

    action: Action
    observation: Observed
    tools: ChangedTools = None
    reasoning_kept: ReasoningKept = False

    @property
    def sent_back(self) -> Message:
        """The action as the next state has it."""
        return self.action if self.reasoning_kept else self.action.spoken()

    @model_validator(mode="before")
    @classmethod
    def _of_schema_1(cls, value: Any) -> Any:
        if isinstance(value, dict) and "reasoning_content" in value:
            action, thought = value["action"], {"reasoning_content": value["reasoning_content"]}
            if isinstance(action, str):
                action = {"role": "assistant", "content": action}
            return {"action": action | thought, "observation": value.get("observation")}
        return value


def tools_at(steps: Sequence[RecordedStep], number: int) -> Tools:
    """The tools offered at step `number`, or after the last step where there is none of that number."""
    changes = (step.tools for step in reversed(steps[: number + 1]) if step.tools is not None)
    return next(changes, ())


def with_changes(offered: Iterable[Tools]) -> Iterator[ChangedTools]:
    """From the tools offered at each step to those of `RecordedStep.tools`."""
    before: Tools = ()
    for tools in offered:
        yield None if tools == before else tools
        before = tools


def keeps_reasoning(action: Message, after: Messages) -> bool:
    """Return whether an action came back with its reasoning; `after` is the next state from the action on."""
    reasoning = action.reasoning_content
    return reasoning is not None and bool(after) and after[0].reasoning_content == reasoning


STEPS: TypeAdapter[tuple[RecordedStep, ...]] = TypeAdapter(tuple[RecordedStep, ...])


class BranchRequest(Envelope):
    """An episode whose states are to be restored: to branch it if it is trusted, to recover from it if it failed."""

    kind: Literal["branch_request"] = "branch_request"
    episode_id: str
    task: Task
    verdict: Literal["trusted", "failed"] = "trusted"
    opening: Messages
    steps: tuple[RecordedStep, ...] = Field(min_length=1)

    def state(self, step: int) -> Messages:
        """The messages the actor saw before its action number `step`."""
        messages = list(self.opening)
        for recorded in self.steps[:step]:
            messages += (recorded.sent_back, *recorded.observation)
        return tuple(messages)

    def tools(self, step: int) -> Tools:
        """The tools the actor was offered at step `step`."""
        return tools_at(self.steps, step)

    def up_to(self, step: int) -> "BranchRequest":
        """The same episode, ending with its step number `step`."""
        return self.model_copy(update={"steps": self.steps[: step + 1]})


class Alternative(Record):
    """An action the trusted actor did not take, and what the sandbox answered."""

    action: Action
    observation: Observed
    done: bool
    score: float
    source: Source


# How exact a restored state is: a copy of it, a replay whose every observation was compared, or none.
Fidelity: TypeAlias = Literal["sandbox_exact", "sandbox_replayed", "dropped"]


# How the reason of a dropped result begins where no sandbox could be opened at all: the same is asked for again once
# the environment is configured.
NO_SANDBOX = "no sandbox could be opened"


class Failure(Record):
    """An action without a usable answer: it took too long, the process died of it twice, or the answer is too large."""

    action: Action
    failure_kind: Literal["timeout", "died", "too_large"] = Field(alias="fate")

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
