"""Trust rules: which episodes may be learned from, and which branches are requested of them.

Pure; the store calls it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import Field

from streams.events import MESSAGES, BranchRequest, Message, RecordedStep, Task, spoken
from streams.ids import content_id
from streams.settings import FrozenModel
from streams.trust.simhash import simhash

WITHDRAWAL = "withdrawal-"


class TrustSettings(FrozenModel):
    """Settings of the trust rules."""

    failed_demonstrations: bool = Field(
        default=False, description="Trust episodes of experts and humans even if an outcome says that they failed."
    )


@dataclass(frozen=True, slots=True)
class StoredStep:
    """A production step as the store has it.

    Steps of the same content are equal, whatever events they came in and whether reasoning came with them. `said` are
    the messages without it.
    """

    step: int
    task: Task
    messages: tuple[Message, ...] = field(compare=False)
    action: str
    observation: str
    actor_kind: str
    principal: str
    reasoning: str | None = field(default=None, compare=False)
    done: bool = field(default=False, compare=False)
    sequence: int = field(default=0, compare=False)
    said: tuple[Message, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "said", spoken(self.messages))

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From a row of the store's query `STEPS_OF_WANTED`."""
        return cls(
            step=row["step"],
            task=Task(environment=row["environment"], task_id=row["task_id"], seed=row["seed"]),
            messages=MESSAGES.validate_json(row["messages"]),
            action=row["action"],
            observation=row["observation"],
            actor_kind=row["actor_kind"],
            principal=row["principal"],
            reasoning=row["reasoning"],
            done=row["done"],
            sequence=row["sequence"],
        )


def is_trusted(steps: Sequence[StoredStep], successes: Sequence[bool], settings: TrustSettings) -> bool:
    """Return whether an episode that was judged with `successes` is verified: a single failure outweighs any success.

    With `failed_demonstrations` an expert's or human's may have failed; a single policy step makes it the policy's.
    """
    if not steps or not successes:
        return False
    shown = all(step.actor_kind in ("expert", "human") for step in steps)
    return all(successes) or (shown and settings.failed_demonstrations)


def has_failed(steps: Sequence[StoredStep], successes: Sequence[bool]) -> bool:
    """Return whether an episode that was judged with `successes` is a policy's and was never a success."""
    by_policy = any(step.actor_kind == "policy" for step in steps)
    return by_policy and bool(successes) and not any(successes)


def withdrawal_id(episode_id: str) -> str:
    """The id of the fact that an episode lost trust: of the same episode the same, and without its name."""
    return WITHDRAWAL + content_id("untrusted", episode_id)[:32]


def distinct(steps: Sequence[StoredStep]) -> list[StoredStep]:
    """The steps without those that say again, in another event, what a step before them says; in the same order."""
    seen: dict[int, list[StoredStep]] = {}
    kept = []
    for step in steps:
        same_number = seen.setdefault(step.step, [])
        if step not in same_number:
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


def similarity_hash(steps: Sequence[StoredStep]) -> int:
    """The SimHash of what the episode says: those of near-duplicates differ in a few bits only."""
    texts = [steps[0].messages[-1].content]
    for step in steps:
        texts += (text for text in (step.reasoning, step.action, step.observation) if text is not None)
    return simhash("\n".join(texts))


def branch_request(
    episode_id: str, steps: Sequence[StoredStep], verdict: Literal["trusted", "failed"]
) -> BranchRequest | None:
    """The request to branch the episode or, if it failed, to recover from it.

    None unless it is an append-only conversation of one task and principal; earlier actions may come back with their
    reasoning or without. `steps` are in order of `step`. The same episode and verdict always give a request of the same
    id.
    """
    messages = steps[0].said
    for number, step in enumerate(steps):
        same = step.task == steps[0].task and step.principal == steps[0].principal
        if step.step != number or step.said != messages or not same:
            return None
        messages += (
            Message(role="assistant", content=step.action),
            Message(role="user", content=step.observation),
        )
    return BranchRequest(
        event_id=content_id("branch_request", verdict, episode_id),
        episode_id=episode_id,
        task=steps[0].task,
        verdict=verdict,
        opening=steps[0].messages,
        steps=tuple(RecordedStep(action=step.action, observation=step.observation) for step in steps),
    )
