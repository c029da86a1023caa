"""The states for which a rationale can be written: trusted ones at which the outcomes of alternatives are known."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from learners.comparisons import Outcome, outcome_of
from learners.packing import can_be_imitated
from learners.trajectories import Branch, Trajectory
from learners.transcripts import said
from ratchet_client.messages import Message, Messages
from streams.environments import tool_calls
from streams.environments.harness import canonical


@dataclass(frozen=True, slots=True)
class ReflectedState:
    """State `step` of a trusted trajectory, and some alternatives to what was done there."""

    trajectory: Trajectory
    step: int
    alternatives: tuple[Branch, ...]

    @property
    def action(self) -> Message:
        """The trusted action."""
        return self.trajectory.steps[self.step].action

    @property
    def before(self) -> Messages:
        """The chat that is known at the state."""
        state = [*self.trajectory.opening]
        for step in self.trajectory.steps[: self.step]:
            state += [step.sent_back, *step.observation]
        return tuple(state)

    @property
    def after(self) -> tuple[Messages, ...]:
        """The observations that are not known yet at the state: the trusted action's, and those of the alternatives."""
        return (self.trajectory.steps[self.step].observation, *(each.observation for each in self.alternatives))

    @property
    def key(self) -> str:
        return f"{self.trajectory.episode_id}/{self.step}"


def reflected_states(
    trajectories: Sequence[Trajectory], most_alternatives: int, most_states: int, seed: int
) -> list[ReflectedState]:
    """The states in the order of their trajectories, `most_states` of them at most, drawn by `seed`."""
    found = []
    for one in trajectories:
        for step in range(one.learn_from, len(one.steps) if one.success else 0):
            alternatives = _alternatives(one, step, most_alternatives, seed)
            if alternatives and can_be_imitated(one.steps[step].action):
                found.append(ReflectedState(one, step, alternatives))
    if len(found) <= most_states:
        return found
    kept = random.Random(seed).sample(range(len(found)), most_states)
    return [found[place] for place in sorted(kept)]


def shown(action: Message) -> str:
    """An action in one line: its text, or its calls as `name(arguments)`.

    >>> from ratchet_client.messages import assistant, call
    >>> shown(assistant(None, call("ls", '{ "folder": "docs" }'), call("pwd", "")))
    'ls({ "folder": "docs" }); pwd()'
    """
    if not action.calls:
        return " ".join(action.text.split())
    called = (each.function for each in action.calls if each.function is not None)
    return "; ".join(f"{function.name}({' '.join(function.arguments.split())})" for function in called)


def told(messages: Messages) -> str:
    """The messages as one text: what is said in them, in one line each."""
    return "\n".join(" ".join(said(message).split()) for message in messages)


def _alternatives(trajectory: Trajectory, step: int, most: int, seed: int) -> tuple[Branch, ...]:
    """Alternatives that differ from each other and from the trusted action, in an order drawn by `seed`.

    Errors are one in `most` at most where there are enough others: they teach the least.
    """
    distinct = {_key(trajectory.steps[step].action): None}
    found: list[Branch] = []
    for branch in trajectory.branches:
        key = _key(branch.action)
        if branch.step == step and key not in distinct and can_be_imitated(branch.action):
            distinct[key] = None
            found.append(branch)
    random.Random(f"{seed}/{trajectory.episode_id}/{step}").shuffle(found)
    errors = [one for one in found if outcome_of(one, trajectory) is Outcome.ERROR]
    others = [one for one in found if one not in errors]
    return tuple((others[: most - 1] + errors[:1] + others[most - 1 :] + errors[1:])[:most])


def _key(action: Message) -> str:
    """The key of actions that do the same; texts beside calls do nothing."""
    return tool_calls.canonical(action) if action.calls else canonical(action)
