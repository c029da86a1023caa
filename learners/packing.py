"""An episode and its branches as one sequence: the reference trajectory is computed once, a branch attends to it up to
its state, and to itself.

The tree is exact, not an approximation: every token sees the very tokens, at the very positions, that it would see in a
sequence of its own. Objectives say which tokens count; the trainer runs the result with `learners.tree_attention`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from learners.chat import ChatTokenizer
from learners.trajectories import Trajectory
from learners.tree_attention import Segment, TreeLayout, tree_layout
from streams.events import Message


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

    The reference trajectory itself is never cut: it may be longer, and then has no branches.
    """

    def __init__(self, tokenizer: ChatTokenizer, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length

    def pack(self, trajectory: Trajectory, weights: Weights) -> Tree:
        sequence = _Sequence()
        state_ends: list[int] = []
        for message in trajectory.opening:
            sequence.append(self._tokenizer, message, 0.0)
        for number, step in enumerate(trajectory.steps):
            state_ends.append(len(sequence.ids) - 1)
            wanted = weights.actions if number >= trajectory.learn_from else 0.0
            sequence.append(self._tokenizer, Message(role="assistant", content=step.action), wanted)
            sequence.append(self._tokenizer, Message(role="user", content=step.observation), weights.observations)
        sequence.close_segment()
        if weights.branch_observations:
            for branch in trajectory.branches:
                chat = (
                    Message(role="assistant", content=branch.action),
                    Message(role="user", content=branch.observation),
                )
                length = sum(len(self._tokenizer.message(message).ids) for message in chat)
                if len(sequence.ids) + length > self._max_length:
                    continue
                sequence.open_segment(state_ends[branch.step])
                sequence.append(self._tokenizer, chat[0], 0.0)
                sequence.append(self._tokenizer, chat[1], weights.branch_observations)
                sequence.close_segment()
        return sequence.tree()


class _Sequence:
    """A tree under construction."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self._positions: list[int] = []
        self._weights: list[float] = []
        self._segments: list[Segment] = []
        self._start = 0
        self._parent_end = -1

    def open_segment(self, parent_end: int) -> None:
        self._start, self._parent_end = len(self.ids), parent_end

    def close_segment(self) -> None:
        self._segments.append(Segment(self._start, len(self.ids), self._parent_end))

    def append(self, tokenizer: ChatTokenizer, message: Message, weight: float) -> None:
        tokens = tokenizer.message(message)
        begin, end = tokens.content
        first = self._parent_end + 1 + len(self.ids) - self._start
        self.ids.extend(tokens.ids)
        self._positions.extend(range(first, first + len(tokens.ids)))
        self._weights.extend(weight if begin <= index < end else 0.0 for index in range(len(tokens.ids)))

    def tree(self) -> Tree:
        counted = [index for index, weight in enumerate(self._weights) if weight]
        return Tree(
            ids=torch.tensor(self.ids),
            positions=torch.tensor(self._positions),
            layout=tree_layout(self._segments),
            targets=torch.tensor(counted, dtype=torch.long),
            predictors=torch.tensor(predictors(self._segments, counted), dtype=torch.long),
            weights=torch.tensor([self._weights[index] for index in counted]),
        )


def predictors(segments: Iterable[Segment], counted: Sequence[int]) -> list[int]:
    """For each counted token the index of the token that it follows in its own branch."""
    before = {segment.start: segment.parent_end for segment in segments}
    return [before.get(index, index - 1) for index in counted]
