"""An episode and its branches as one sequence: what they share is computed once, a branch attends to it up to where it
leaves it, and to itself.

Objectives say which tokens count: by the weights of their kinds, or by adding replies and observations of their own.
"""

from dataclasses import dataclass

from learners.chat import ChatTokenizer, Turn
from learners.packed_tree import Tree, TreeBuilder
from learners.trajectories import Branch, Rationale, Trajectory
from ratchet_client.messages import Message, Messages
from streams.environments.tool_calls import calls_of
from streams.errors import ToolCallError


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the kinds of tokens in the loss."""

    actions: float = 0.0
    observations: float = 0.0
    branch_observations: float = 0.0


class TreePacker:
    """Packs trajectories for one base model: each with its branches, in order, that fit into `max_length` tokens.

    The trajectory itself is never cut: it may be longer, and then has no branches. Where the chat template writes an
    earlier message differently from how it was served, or other tools were offered, the state that was served becomes a
    branch, too. An observation of no messages, as at an episode's end, counts nothing. Neither does an action without a
    text or calls, nor one whose calls are malformed: it is seen, and never imitated, though it may be made less likely.
    """

    def __init__(self, tokenizer: ChatTokenizer, max_length: int, *, reasoning: bool = False) -> None:
        """With `reasoning`, an action is its reasoning, too, as far as the chat template writes it."""
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._reasoning = reasoning

    def pack(self, trajectory: Trajectory, weights: Weights) -> Tree:
        """Raises `ChatTemplateError` when the template of the base model cannot write the trajectory."""
        packing = self.begin(trajectory)
        for number in range(len(trajectory.steps)):
            if weights.actions:
                packing.add_action(number, weights.actions)
            if weights.observations:
                packing.add_observation(number, weights.observations)
        if weights.branch_observations:
            for branch in trajectory.branches:
                packing.add_branch_observation(branch, weights.branch_observations)
        return packing.tree()

    def begin(self, trajectory: Trajectory) -> "Packing":
        """The trajectory as a tree of which nothing counts yet. Raises `ChatTemplateError`."""
        return Packing(self._tokenizer, trajectory, self._max_length, reasoning=self._reasoning)


class Packing:
    """A trajectory under packing. Its methods raise `ChatTemplateError` when the template cannot write a turn."""

    def __init__(self, tokenizer: ChatTokenizer, trajectory: Trajectory, max_length: int, *, reasoning: bool) -> None:
        self.trajectory = trajectory
        self.states = _states(trajectory)
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._reasoning = reasoning
        self._prompt_lengths: dict[int, int] = {}
        self._builder = TreeBuilder(self._reference())

    def add_action(self, step: int, weight: float) -> int | None:
        """Count the recorded action of a step; returns the response's number, None where it must not be imitated.

        An action that says nothing, or calls malformed, counts with a weight below zero alone: it may only be made less
        likely.
        """
        trajectory = self.trajectory
        action = trajectory.steps[step].action
        if step < trajectory.learn_from or (weight > 0 and not can_be_imitated(action)):
            return None
        turn = self._tokenizer.reply(self.states[step], self._imitated(action), trajectory.tools(step))
        sampled = trajectory.log_probabilities[step] if step < len(trajectory.log_probabilities) else ()
        return self._builder.add(turn, weight, sampled=sampled)

    def add_reply(self, step: int, reply: Message, weight: float) -> int | None:
        """Count another reply at a step's state, as a branch, if it fits; returns the response's number."""
        turn = self._tokenizer.reply(self.states[step], reply, self.trajectory.tools(step))
        return self._add_branch(turn, step, weight)

    def add_alternative(self, branch: Branch, weight: float) -> int | None:
        """Count a branch's action as a reply, if it fits; returns its number, None also where it cannot be a reply."""
        if not can_be_imitated(branch.action):
            return None
        return self.add_reply(branch.step, self._imitated(branch.action), weight)

    def add_rationale(self, rationale: Rationale, weight: float) -> int | None:
        """Count a rationale and the recorded action after it as one reply, if it fits; returns its number.

        None also where the action must not be imitated.
        """
        step, trajectory = rationale.step, self.trajectory
        if not trajectory.learn_from <= step < len(trajectory.steps):
            return None
        action = trajectory.steps[step].action
        if not can_be_imitated(action):
            return None
        thought = self._reasoning and self._tokenizer.reply_format.thoughts is not None
        return self.add_reply(step, reasoned(action, rationale.text, thought=thought), weight)

    def add_observation(self, step: int, weight: float) -> int | None:
        """Count what came back after a step, if anything did; returns the response's number."""
        observation = self.trajectory.steps[step].observation
        if not observation:
            return None
        turn = self._tokenizer.observation(self.states[step + 1], len(observation), self.trajectory.tools(step))
        return self._builder.add(turn, weight)

    def add_branch_observation(self, branch: Branch, weight: float) -> int | None:
        """Count what came back after an alternative, if anything did and it fits; returns the response's number."""
        if not branch.observation:
            return None
        chat = (*self.states[branch.step], branch.action.spoken(), *branch.observation)
        turn = self._tokenizer.observation(chat, len(branch.observation), self.trajectory.tools(branch.step))
        return self._add_branch(turn, branch.step, weight)

    def tree(self) -> Tree:
        """The packed tree."""
        return self._builder.tree()

    def _add_branch(self, turn: Turn, step: int, weight: float) -> int | None:
        # Branches of one state are attended to together, so none of them shares more than the state.
        if step not in self._prompt_lengths:
            prompt = self._tokenizer.prompt(self.states[step], self.trajectory.tools(step))
            self._prompt_lengths[step] = len(prompt)
        shared = self._prompt_lengths[step]
        if self._builder.length_with(turn, shared) > self._max_length:
            return None
        return self._builder.add(turn, weight, shared)

    def _reference(self) -> Turn:
        """The whole chat, with the tools that most of its steps were offered."""
        trajectory = self.trajectory
        if not trajectory.steps:
            ids = tuple(self._tokenizer.prompt(self.states[0]))
            return Turn(ids, (len(ids), len(ids)))
        offered = [trajectory.tools(number) for number in range(len(trajectory.steps))]
        last, tools = trajectory.steps[-1], max(offered, key=offered.count)
        if not last.observation:
            return self._tokenizer.reply(self.states[-2], self._imitated(last.action), tools)
        return self._tokenizer.observation(self.states[-1], len(last.observation), tools)

    def _imitated(self, action: Message) -> Message:
        return action if self._reasoning else action.spoken()


def reasoned(action: Message, rationale: str, *, thought: bool) -> Message:
    """The action with a rationale before it: as its reasoning where it is `thought`, else at the begin of its content.

    >>> reasoned(Message(role="assistant", content="open fridge"), "Food spoils.", thought=False).text
    'Food spoils.\\nopen fridge'
    """
    if thought:
        return action.model_copy(update={"reasoning_content": rationale})
    said = "\n".join(part for part in (rationale, action.text.strip()) if part)
    return action.model_copy(update={"content": said, "reasoning_content": None})


def can_be_imitated(action: Message) -> bool:
    """Return whether the action says anything, in calls that a server would read as calls."""
    try:
        called = calls_of(action)
    except ToolCallError:
        return False
    return bool(called or action.text.strip())


def _states(trajectory: Trajectory) -> list[Messages]:
    """The chat at each step and after the last one."""
    states = [trajectory.opening]
    for step in trajectory.steps:
        states.append((*states[-1], step.sent_back, *step.observation))
    return states
