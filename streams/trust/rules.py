"""Trust rules: which episodes may be learned from, and which branches are requested of them.

Pure; the store calls it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, Self

from pydantic import Field, ValidationError

from ratchet_client.events import Task
from ratchet_client.ids import content_id
from ratchet_client.messages import MESSAGE, MESSAGES, TOOLS, Message, Messages, Tools, same_conversation, same_message
from ratchet_client.settings import FrozenModel
from streams.branch_events import BranchRequest, RecordedStep, keeps_reasoning, with_changes

WITHDRAWAL = "withdrawal-"
# A verifier of such a name is a model that was asked for its opinion.
MODEL_JUDGE = "model:"

NO_STEPS = "none of its steps is stored"
FAILED = "an outcome says that it failed"
DISAGREEING = "another outcome says that it failed"
ONLY_MODELS = "only a model says that it succeeded"
WAITING = "steps came after its outcome, and wait for an outcome of their own"
# A setting may decide otherwise on these.
BY_SETTINGS = (FAILED, ONLY_MODELS)


class TrustSettings(FrozenModel):
    """Settings of the trust rules."""

    failed_demonstrations: bool = Field(
        default=False, description="Trust episodes of experts and humans even if an outcome says that they failed."
    )
    model_judges: bool = Field(
        default=False, description="Let verifiers that are models (`model:…`) make an episode trusted without others."
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """An outcome that counts: the latest of its verifier on an episode."""

    verifier: str
    success: bool

    @property
    def by_model(self) -> bool:
        """Return whether it is the opinion of a model."""
        return self.verifier.startswith(MODEL_JUDGE)


@dataclass(frozen=True, slots=True)
class StoredStep:
    """A production step as the store has it. `tools` are those that the actor was offered."""

    step: int
    task: Task
    messages: Messages
    action: Message
    observation: Messages
    actor_kind: str
    principal: str
    tools: Tools = ()
    done: bool = False
    sequence: int = 0

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From a row of the store's query `STEPS_OF_WANTED`."""
        return cls(
            step=row["step"],
            task=Task(environment=row["environment"], task_id=row["task_id"], seed=row["seed"], state=row["state"]),
            messages=MESSAGES.validate_json(row["messages"]),
            action=MESSAGE.validate_json(row["action"]),
            observation=MESSAGES.validate_json(row["observation"]),
            actor_kind=row["actor_kind"],
            principal=row["principal"],
            tools=() if row["tools"] is None else TOOLS.validate_json(row["tools"]),
            done=row["done"],
            sequence=row["sequence"],
        )

    def repeats(self, other: "StoredStep") -> bool:
        """Return whether both say the same, whatever events they came in and whether reasoning came with them."""
        return (
            (self.step, self.task, self.actor_kind, self.principal, self.tools)
            == (other.step, other.task, other.actor_kind, other.principal, other.tools)
            and same_message(self.action, other.action)
            and same_conversation(self.observation, other.observation)
            and same_conversation(self.messages, other.messages)
        )


def why_not_trusted(steps: Sequence[StoredStep], outcomes: Sequence[Outcome], settings: TrustSettings) -> str | None:
    """Return why the outcomes that count do not make an episode trusted, or None where they do.

    All of them must be successes, and one of them not a model's, unless `model_judges` says so. With
    `failed_demonstrations` an expert's or human's may have failed; a single policy step makes it the policy's.
    """
    if not steps:
        return NO_STEPS
    shown = all(step.actor_kind in ("expert", "human") for step in steps)
    if shown and settings.failed_demonstrations and outcomes:
        return None
    if not all(outcome.success for outcome in outcomes):
        return DISAGREEING if any(outcome.success for outcome in outcomes) else FAILED
    if not settings.model_judges and all(outcome.by_model for outcome in outcomes):
        return ONLY_MODELS
    return None


def has_failed(steps: Sequence[StoredStep], outcomes: Sequence[Outcome]) -> bool:
    """Return whether an episode is a policy's and every outcome that counts is a failure."""
    by_policy = any(step.actor_kind == "policy" for step in steps)
    return by_policy and bool(outcomes) and not any(outcome.success for outcome in outcomes)


def withdrawal_id(episode_id: str) -> str:
    """The id of the fact that an episode lost trust: of the same episode the same, and without its name."""
    return WITHDRAWAL + content_id("untrusted", episode_id)[:32]


def distinct(steps: Sequence[StoredStep]) -> list[StoredStep]:
    """The steps without those that say again, in another event, what a step before them says; in the same order."""
    seen: dict[int, list[StoredStep]] = {}
    kept = []
    for step in steps:
        same_number = seen.setdefault(step.step, [])
        if not any(map(step.repeats, same_number)):
            same_number.append(step)
            kept.append(step)
    return kept


def is_contradictory(steps: Sequence[StoredStep]) -> bool:
    """Return whether two of the `distinct` steps have the same number: nobody can tell which of them happened."""
    return len({step.step for step in steps}) < len(steps)


def covers(outcome_at: int, steps: Sequence[StoredStep], *, again: bool) -> bool:
    """Return whether outcomes up to the sequence `outcome_at` speak of all the steps.

    They do of those stored before, and of those that are numbered below one of these and only arrived late. Further
    steps must wait for an outcome of their own, but for this: where nothing was decided yet (not `again`), an outcome
    may have overtaken the end of its episode, since another producer may send it.
    """
    before = [step for step in steps if step.sequence < outcome_at]
    last = max((step.step for step in before), default=-1)
    after = [step for step in steps if step.step > last]
    ends = any(step.done for step in after) and not any(step.done for step in before)
    return not after or (ends and not again)


def why_not_whole(steps: Sequence[StoredStep]) -> str | None:
    """Return why the steps, in order of `step`, are not one append-only conversation of one task and principal.

    Earlier actions may come back with their reasoning or without, and as clients spell them.
    """
    # Not against a range: a number is the producer's, and may be very large.
    if len({step.step for step in steps}) != steps[-1].step + 1:
        return "a step is missing"
    if len({step.principal for step in steps}) > 1:
        return "its steps are of several principals"
    if len({step.task for step in steps}) > 1:
        return "its steps are of several tasks"
    return None if rewritten_at(steps) is None else "not an append-only conversation"


def rewritten_at(steps: Sequence[StoredStep]) -> int | None:
    """Return the number of the first step whose messages are not what its predecessor's become, or that is twice there.

    `steps` are in order of `step`; None where each continues the one before, as far as that is stored.
    """
    messages: list[Message] = []
    for before, step in zip((None, *steps), steps, strict=False):
        if before is None or step.step > before.step + 1:
            messages = list(step.messages)
        elif step.step == before.step or not same_conversation(step.messages, messages):
            return step.step
        messages += (step.action, *step.observation)
    return None


def branch_request(
    episode_id: str, steps: Sequence[StoredStep], verdict: Literal["trusted", "failed"]
) -> BranchRequest | None:
    """The request to branch the episode or, if it failed, to recover from it; None unless `why_not_whole` is None.

    The same episode and verdict always give a request of the same id.
    """
    if why_not_whole(steps) is not None:
        return None
    place = len(steps[0].messages)
    kept = []
    for number, step in enumerate(steps):
        after = steps[number + 1].messages[place:] if number + 1 < len(steps) else ()
        kept.append(keeps_reasoning(step.action, after))
        place += 1 + len(step.observation)
    return BranchRequest(
        event_id=content_id("branch_request", verdict, episode_id),
        episode_id=episode_id,
        task=steps[0].task,
        verdict=verdict,
        opening=steps[0].messages,
        steps=tuple(
            RecordedStep(action=step.action, observation=step.observation, tools=tools, reasoning_kept=reasoning)
            for step, tools, reasoning in zip(steps, with_changes(step.tools for step in steps), kept, strict=True)
        ),
    )


def asked_again(request: BranchRequest) -> BranchRequest:
    """The same request once more, by an id that follows from its own: the results of the first hide none of it."""
    return request.model_copy(update={"event_id": content_id("branch_request_again", request.event_id)})


def cannot_be_learned_from(request: BranchRequest) -> str | None:
    """Return why nothing can be learned from an append-only conversation, or None."""
    try:
        # Within a request, JSON of unknown fields lies deeper than in the event, and may lie too deep to be read.
        BranchRequest.model_validate_json(request.to_json())
    except ValidationError:
        return "a field of a message is nested too deep to be read again"
    return _broken_calls(request)


def _broken_calls(request: BranchRequest) -> str | None:
    """Return why the states of an episode are not such as a chat API takes, or None.

    A result of a tool answers a call that came before it, and every call has its result before the next action: where
    one is missing, something was lost on the way, and the action would be learned as a guess at it. Of two results of
    one call, and of the results of two calls with one id in one action, nobody can tell which is which; OpenAI and
    Anthropic refuse both. A later action may use an id again. Words may stand before a result: OpenAI refuses that,
    others take it, and nothing is lost. The calls of the last action need no results. Without ids, the first call that
    waits is the one that is answered.
    """
    called: set[str] = set()
    waiting: list[str] = []
    for message in chain(request.opening, *((step.action, *step.observation) for step in request.steps)):
        if message.role == "assistant":
            if waiting:
                return "a tool call has no result before the next action"
            waiting = [call.id for call in message.calls]
            identified = [identity for identity in waiting if identity]
            if len(set(identified)) < len(identified):
                return "two tool calls of one action have the same id"
            called.update(identified)
        elif message.role == "tool":
            answered = message.tool_call_id or ""
            if answered in waiting:
                waiting.remove(answered)
            elif waiting and not answered:
                waiting.pop(0)
            elif answered in called:
                return "a tool call has two results"
            elif "" in waiting:
                waiting.remove("")
            else:
                return "the result of a tool answers no call"
    return None
