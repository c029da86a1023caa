"""The contracts on the wire between Ratchet's own roles: branch requests, and what became of them.

Agents neither publish nor read them: theirs are in `ratchet_client.events`.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter, model_validator

from ratchet_client.event_fields import Action, Count, Observed, is_none
from ratchet_client.events import Envelope, Task
from ratchet_client.ids import content_id
from ratchet_client.messages import Message, Messages, Record, Tools

# The tools offered from a step on, None where they are those of the step before; before the first there are none.
ChangedTools: TypeAlias = Annotated[Tools | None, Field(exclude_if=is_none)]
ReasoningKept: TypeAlias = Annotated[bool, Field(exclude_if=lambda kept: not kept)]


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
