"""The material of a lesson: where two attempts at a task part, and a chat as text.

Pure, and without a model: the objective `mel` calls it, and `evaluation/second_attempts.py`, which plays with lessons.
"""

from learners.trajectories import Trajectory
from streams.environments.harness import canonical
from streams.messages import Message, Messages


def parting(success: Trajectory, failure: Trajectory) -> int | None:
    """The step at which two attempts at one task did something else in the same state; None where they never did."""
    step = shared_steps(success, failure)
    if not _alike(success.opening, failure.opening) or step >= min(len(success.steps), len(failure.steps)):
        return None
    return None if _same_action(success, failure, step) else step


def shared_steps(one: Trajectory, other: Trajectory) -> int:
    """The number of first steps that do the same and are answered alike."""
    for step, (this, that) in enumerate(zip(one.steps, other.steps, strict=False)):
        if not (_same_action(one, other, step) and _alike(this.observation, that.observation)):
            return step
    return min(len(one.steps), len(other.steps))


def transcript(messages: Messages) -> str:
    """A chat as text, without its system message."""
    return "\n".join(f"{each.role}: {said(each)}" for each in messages if each.role != "system")


def said(message: Message) -> str:
    """The content and the calls of a message as one text."""
    calls = (call.model_dump_json(include={"function"}, exclude_none=True) for call in message.calls)
    return " ".join(part for part in (message.text.strip(), *calls) if part)


def _same_action(one: Trajectory, other: Trajectory, step: int) -> bool:
    return canonical(one.steps[step].action) == canonical(other.steps[step].action)


def _alike(one: Messages, other: Messages) -> bool:
    """Return whether messages say the same: the ids of calls, which differ each time, say nothing."""
    return [(each.role, said(each)) for each in one] == [(each.role, said(each)) for each in other]
