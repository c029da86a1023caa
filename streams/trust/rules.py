"""Trust rules: which episodes may be learned from, and which branches are requested of them.

Pure; the store calls it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from streams.events import MESSAGES, BranchRequest, Message, RecordedStep, Task, spoken
from streams.ids import content_id
from streams.trust.simhash import simhash


@dataclass(frozen=True, slots=True)
class StoredStep:
    """A production step as the store has it."""

    step: int
    task: Task
    messages: tuple[Message, ...]
    action: str
    observation: str
    actor_kind: str
    principal: str
    reasoning: str | None = None

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
        )


def is_trusted(steps: Sequence[StoredStep], successes: Sequence[bool]) -> bool:
    """Return whether an episode that was judged with `successes` is an expert's, a human's, or verified.

    A single policy step makes the episode the policy's, and a single failure outweighs any success.
    """
    if not steps or not successes:
        return False
    return all(step.actor_kind in ("expert", "human") for step in steps) or all(successes)


def has_failed(steps: Sequence[StoredStep], successes: Sequence[bool]) -> bool:
    """Return whether an episode that was judged with `successes` is a policy's and was never a success."""
    by_policy = any(step.actor_kind == "policy" for step in steps)
    return by_policy and bool(successes) and not any(successes)


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
    messages = spoken(steps[0].messages)
    for number, step in enumerate(steps):
        same = step.task == steps[0].task and step.principal == steps[0].principal
        if step.step != number or spoken(step.messages) != messages or not same:
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
