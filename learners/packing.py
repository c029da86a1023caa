"""An episode and its branches as one sequence: what they share is computed once, a branch attends to it up to where it
leaves it, and to itself.

The tree is exact, not an approximation: every token sees the very tokens, at the very positions, that it would see in a
sequence of its own. Objectives say which tokens count; the trainer runs the result with `learners.tree_attention`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from learners.chat import ChatTokenizer, Turn
from learners.trajectories import Trajectory
from learners.tree_attention import Segment, TreeLayout, tree_layout
from streams.environments.tool_calls import calls_of
from streams.errors import ToolCallError
from streams.messages import Message, Messages


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the kinds of tokens in the loss."""

    actions: float = 0.0
    observations: float = 0.0
    branch_observations: float = 0.0


@dataclass(frozen=True, slots=True)
class Tree:
    """A packed episode.

    Shapes: `ids` and `positions` (length,); `targets`, `predictors` and `weights` (counted tokens,): token `targets[k]`
    is predicted from position `predictors[k]` of the sequence. `layout` says what attends to what.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    layout: TreeLayout
    targets: torch.Tensor
    predictors: torch.Tensor
    weights: torch.Tensor

    @property
    def length(self) -> int:
        return int(self.ids.numel())


class TreePacker:
    """Packs trajectories for one base model: each with its branches, in order, that fit into `max_length` tokens.

    The trajectory itself is never cut: it may be longer, and then has no branches. Where the chat template writes an
    earlier message differently from how it was served, or other tools were offered, the state that was served becomes a
    branch, too. An observation of no messages, as at an episode's end, counts nothing. Neither does an action without a
    text or calls, nor one whose calls are malformed: it is seen, and never imitated.
    """

    def __init__(self, tokenizer: ChatTokenizer, max_length: int, *, reasoning: bool = False) -> None:
        """With `reasoning`, an action is its reasoning, too, as far as the chat template writes it."""
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._reasoning = reasoning

    def pack(self, trajectory: Trajectory, weights: Weights) -> Tree:
        """Raises `ChatTemplateError` when the template of the base model cannot write the trajectory."""
        states = _states(trajectory)
        sequence = _Sequence(self._reference(trajectory, states))
        for number, step in enumerate(trajectory.steps):
            tools = trajectory.tools(number)
            if weights.actions and number >= trajectory.learn_from and _can_be_imitated(step.action):
                sequence.add(self._tokenizer.reply(states[number], self._imitated(step.action), tools), weights.actions)
            if weights.observations and step.observation:
                turn = self._tokenizer.observation(states[number + 1], len(step.observation), tools)
                sequence.add(turn, weights.observations)
        if weights.branch_observations:
            # Branches of one state are attended to together, so none of them shares more than the state.
            branches = [branch for branch in trajectory.branches if branch.observation]
            lengths = {
                step: len(self._tokenizer.prompt(states[step], trajectory.tools(step)))
                for step in {branch.step for branch in branches}
            }
            for branch in branches:
                chat = (*states[branch.step], branch.action.spoken(), *branch.observation)
                turn = self._tokenizer.observation(chat, len(branch.observation), trajectory.tools(branch.step))
                if sequence.length_with(turn, lengths[branch.step]) <= self._max_length:
                    sequence.add(turn, weights.branch_observations, lengths[branch.step])
        return sequence.tree()

    def _reference(self, trajectory: Trajectory, states: Sequence[Messages]) -> Turn:
        """The whole chat, with the tools that most of its steps were offered."""
        if not trajectory.steps:
            ids = tuple(self._tokenizer.prompt(states[0]))
            return Turn(ids, (len(ids), len(ids)))
        offered = [trajectory.tools(number) for number in range(len(trajectory.steps))]
        last, tools = trajectory.steps[-1], max(offered, key=offered.count)
        if not last.observation:
            return self._tokenizer.reply(states[-2], self._imitated(last.action), tools)
        return self._tokenizer.observation(states[-1], len(last.observation), tools)

    def _imitated(self, action: Message) -> Message:
        return action if self._reasoning else action.spoken()


def _states(trajectory: Trajectory) -> list[Messages]:
    """The chat at each step and after the last one."""
    states = [trajectory.opening]
    for step in trajectory.steps:
        states.append((*states[-1], step.sent_back, *step.observation))
    return states


def _can_be_imitated(action: Message) -> bool:
    """Return whether the action says anything, in calls that a server would read as calls."""
    try:
        called = calls_of(action)
    except ToolCallError:
        return False
    return bool(called or action.text.strip())


class _Sequence:
    """A tree under construction; it begins as the tokens of `reference`."""

    def __init__(self, reference: Turn) -> None:
        self._reference = reference.ids
        self._ids = list(reference.ids)
        self._positions = list(range(len(self._ids)))
        self._weights = [0.0] * len(self._ids)
        self._segments = [Segment(0, len(self._ids), -1)]

    def length_with(self, turn: Turn, shared: int) -> int:
        """Return the length of the tree with `turn` added."""
        return len(self._ids) + max(0, turn.written[1] - self._shared(turn, shared))

    def add(self, turn: Turn, weight: float, shared: int | None = None) -> None:
        """Count what is written in `turn`, as a branch where its tokens, or those after `shared`, are of its own."""
        begin, end = turn.written
        common = self._shared(turn, shared)
        for index in range(begin, min(end, common)):
            self._weights[index] = weight
        if end <= common:
            return
        start = len(self._ids)
        self._ids += turn.ids[common:end]
        self._positions += range(common, end)
        self._weights += [weight if index >= begin else 0.0 for index in range(common, end)]
        self._segments.append(Segment(start, len(self._ids), common - 1))

    def tree(self) -> Tree:
        counted = [index for index, weight in enumerate(self._weights) if weight]
        return Tree(
            ids=torch.tensor(self._ids),
            positions=torch.tensor(self._positions),
            layout=tree_layout(self._segments),
            targets=torch.tensor(counted, dtype=torch.long),
            predictors=torch.tensor(predictors(self._segments, counted), dtype=torch.long),
            weights=torch.tensor([self._weights[index] for index in counted]),
        )

    def _shared(self, turn: Turn, most: int | None) -> int:
        """Return the number of the first tokens of `turn` that are those of the reference, `most` at most."""
        limit = min(len(self._reference), len(turn.ids), len(turn.ids) if most is None else most)
        if self._reference[:limit] == turn.ids[:limit]:
            return limit
        return next(index for index in range(limit) if self._reference[index] != turn.ids[index])


def predictors(segments: Iterable[Segment], counted: Sequence[int]) -> list[int]:
    """For each counted token the index of the token that it follows in its own branch."""
    before = {segment.start: segment.parent_end for segment in segments}
    return [before.get(index, index - 1) for index in counted]
