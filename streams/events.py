"""The contracts on the wire: what agents publish on `ratchet.events`, and what Ratchet publishes for itself.

Agents import nothing of Ratchet but this module and, if they like, `streams.producer`. Unknown fields of an event are
refused, so that a typo is a dead-letter record and not a silent loss; those inside a message are kept.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    AwareDatetime,
    ConfigDict,
    Field,
    FiniteFloat,
    GetCoreSchemaHandler,
    GetPydanticSchema,
    TypeAdapter,
    model_validator,
)
from pydantic_core import core_schema

from streams.ids import content_id, uuid7
from streams.messages import ContentPart as ContentPart
from streams.messages import FunctionCall as FunctionCall
from streams.messages import Message as Message
from streams.messages import Messages as Messages
from streams.messages import Record, Tools, as_definition
from streams.messages import ToolCall as ToolCall

# The store keeps numbers in 32 and 64 bits; a larger one must be a dead-letter record and not the end of the writer.
Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**31)]
# Names are logged and joined by; a longer one is refused.
Name: TypeAlias = Annotated[str, Field(max_length=512)]
Identity: TypeAlias = Annotated[str, Field(min_length=1, max_length=512)]
Seed: TypeAlias = Annotated[int, Field(ge=-(2**63), lt=2**63)]


def _is_none(value: object) -> bool:
    return value is None


def _is_false(value: bool) -> bool:
    return not value


def _is_empty(value: tuple[object, ...]) -> bool:
    return not value


def _action(said: Message | str) -> Message:
    action = Message(role="assistant", content=said) if isinstance(said, str) else said
    if action.role != "assistant":
        raise ValueError("an action is an assistant's message: its role is assistant")
    return action


def _observed(said: Messages | str) -> Messages:
    messages = (Message(role="user", content=said),) if isinstance(said, str) else said
    for message in messages:
        if message.role == "assistant":
            raise ValueError("an observation is what came back: an assistant's message is an action of another step")
    return messages


def _definitions(tools: Tools) -> Tools:
    return tuple(map(as_definition, tools))


def _or_text(as_messages: Callable[[Any], Any]) -> GetPydanticSchema:
    """In schema 1 an action and an observation were texts. JSON is read as either in one go, without Python between."""

    def schema(source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        choices: list[Any] = [(handler(source), "list"), (core_schema.str_schema(), "str")]
        either = core_schema.union_schema(choices, mode="left_to_right")
        return core_schema.no_info_after_validator_function(as_messages, either)

    return GetPydanticSchema(schema)


# An action is an assistant's message, an observation the messages that came back: results of tools, the user's words.
Action: TypeAlias = Annotated[Message, _or_text(_action)]
Observed: TypeAlias = Annotated[Messages, _or_text(_observed)]
# In another API's form they are read as the OpenAI API has them.
OfferedTools: TypeAlias = Annotated[Tools, AfterValidator(_definitions), Field(exclude_if=_is_empty)]
# The tools offered from a step on, None where they are those of the step before; before the first there are none.
ChangedTools: TypeAlias = Annotated[Tools | None, Field(exclude_if=_is_none)]
ReasoningKept: TypeAlias = Annotated[bool, Field(exclude_if=_is_false)]


# What follows it in a task's id names a variant of the task. Variants are on one side of the holdout.
VARIANT_MARK = "~"


def family(task_id: str) -> str:
    """The part of the id that all variants of the task share: to have met one of them is to have met them all.

    >>> family("multi_turn/train/17~miss_func")
    'multi_turn/train/17'
    """
    return task_id.partition(VARIANT_MARK)[0]


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
    """`schema` 1, in which actions and observations were texts, is still read."""

    schema_version: Literal[1, 2] = Field(default=2, alias="schema")
    event_id: Identity = Field(default_factory=uuid7)

    model_config = ConfigDict(populate_by_name=True)


def _now() -> datetime:
    return datetime.now(UTC)


class StepEvent(Envelope):
    """One step of an episode: the exact messages the actor saw, what it did, and what came back.

    `tools` are those that the actor was offered. `observation` has the messages that follow the action in the next
    state: the results of its tool calls, the user's next words, or both; none where nothing came back. `flag` is the
    reason, if the producer knows one, for which nothing must be learned from the episode. `receipt` is that of the
    captured call that the step was, by which feedback names it.
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
    flag: Name | None = Field(default=None, exclude_if=_is_none)
    receipt: Identity | None = Field(default=None, exclude_if=_is_none)


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
    """An action that the sandbox did not survive: it took too long, or the process died of it, twice."""

    action: Action
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
