"""Replies that are known to be worse than a trusted one at the same state, for objectives that learn from preferences.

Pure; the files of `learners.objectives` call it.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import StrEnum

from learners.trajectories import Branch, Trajectory
from ratchet_client.messages import Message, Messages, same_conversation, same_message
from streams.environments.harness import canonical


class Outcome(StrEnum):
    """The observed outcome of an alternative. All but the last say that it is worse than what was done."""

    ERROR = "error"
    NOTHING_NEW = "nothing new"
    WORSE_END = "worse end"
    OTHER = "other"


def worse_branches(trajectory: Trajectory) -> tuple[Branch, ...]:
    """The alternatives of a success whose observed outcome was an error, nothing new, or an end with a lower score.

    Others may be as good as what was done, and are not compared. Neither are the states before `learn_from`.
    """
    steps = trajectory.steps
    return tuple(
        branch
        for branch in trajectory.branches
        if trajectory.learn_from <= branch.step < len(steps)
        and not same_message(branch.action, steps[branch.step].action)
        and outcome_of(branch, trajectory) is not Outcome.OTHER
    )


def failed_branches(success: Trajectory, failures: Iterable[Trajectory]) -> tuple[Branch, ...]:
    """At each state where a failure of the same task parts from a success, what the failure did there, each once."""
    found: list[Branch] = []
    for failure in failures:
        step = parting(success, failure)
        if step is None or step < success.learn_from:
            continue
        taken = failure.steps[step]
        if any(one.step == step and same_message(one.action, taken.action) for one in found):
            continue
        found.append(Branch(step, taken.action, taken.observation, "failure", "recorded", failure.score))
    return tuple(found)


def compared(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Each success with what is worse than it as its only branches; successes that nothing is compared with are not."""
    failures: dict[str, list[Trajectory]] = defaultdict(list)
    for one in trajectories:
        if not one.success:
            failures[one.task_id].append(one)
    found = []
    for one in trajectories:
        if one.success and one.steps:
            branches = (*worse_branches(one), *failed_branches(one, failures[one.task_id]))
            if branches:
                found.append(replace(one, branches=branches))
    return found


def parting(one: Trajectory, other: Trajectory) -> int | None:
    """The first step at which two episodes acted differently at one state.

    None where they acted alike to the end of one of them, or where the environment answered differently first. The ids
    of calls, which differ each time, say nothing.
    """
    step, acted_differently = _first_difference(one, other)
    return step if acted_differently else None


def shared_steps(one: Trajectory, other: Trajectory) -> int:
    """The number of first steps at which two episodes acted alike and were answered alike."""
    return _first_difference(one, other)[0]


def outcome_of(branch: Branch, trajectory: Trajectory) -> Outcome:
    """The outcome of a branch of `trajectory`; an observation without a text is an error, too."""
    texts = [message.text.strip() for message in branch.observation]
    if not any(texts) or any(map(_is_error, branch.observation)):
        return Outcome.ERROR
    before = trajectory.steps[branch.step - 1].observation if branch.step else trajectory.opening[-1:]
    if texts == [message.text.strip() for message in before]:
        return Outcome.NOTHING_NEW
    is_worse = branch.done and branch.score is not None and branch.score < trajectory.score
    return Outcome.WORSE_END if is_worse else Outcome.OTHER


def _first_difference(one: Trajectory, other: Trajectory) -> tuple[int, bool]:
    """The first step that is not the same in both, and whether the actions are what differs there."""
    ids: tuple[dict[str, str], dict[str, str]] = ({}, {})

    def alike(mine: Messages, theirs: Messages) -> bool:
        return same_conversation(_numbered(mine, ids[0]), _numbered(theirs, ids[1]))

    if not alike(one.opening, other.opening):
        return 0, False
    for number, (mine, theirs) in enumerate(zip(one.steps, other.steps, strict=False)):
        if one.tools(number) != other.tools(number):
            return number, False
        said_alike = alike((mine.action.spoken(),), (theirs.action.spoken(),))
        if not said_alike and canonical(mine.action) != canonical(theirs.action):
            return number, True
        if not alike(mine.observation, theirs.observation):
            return number, False
    return min(len(one.steps), len(other.steps)), False


def _numbered(messages: Messages, ids: dict[str, str]) -> Messages:
    """The messages with ids of calls by the order in which they came."""

    def renamed(message: Message) -> Message:
        if message.tool_call_id is None and not message.calls:
            return message
        calls = tuple(
            call.model_copy(update={"id": ids.setdefault(call.id or "", str(len(ids)))}) for call in message.calls
        )
        answered = message.tool_call_id if message.tool_call_id is None else ids.get(message.tool_call_id)
        return message.model_copy(update={"tool_calls": calls or None, "tool_call_id": answered})

    return tuple(map(renamed, messages))


def _is_error(message: Message) -> bool:
    """Return whether a tool or an environment says that it could not do what it was asked."""
    if (message.model_extra or {}).get("is_error") is True:
        return True
    text = message.text.strip()
    if text.lower().startswith(("error:", "exception:", "traceback ")):
        return True
    if not text.startswith("{"):
        return False
    try:
        told = json.loads(text)
    except ValueError:
        return False
    return isinstance(told, dict) and bool(told.get("error") or told.get("is_error") is True)
