"""A packed tree: one sequence in which what several chats share is computed once, and the tokens of it that count.

The tree is exact, not an approximation: every token sees the very tokens, at the very positions, that it would see in a
sequence of its own. `learners.packing` builds trees of trajectories; the trainer runs them with
`learners.tree_attention`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from learners.chat import Turn
from learners.tree_attention import Segment, TreeLayout, tree_layout


@dataclass(frozen=True, slots=True)
class Tree:
    """A packed episode.

    Shapes: `ids` and `positions` (length,); the others (counted tokens,): token `targets[k]` is predicted from position
    `predictors[k]` of the sequence and counts `weights[k]`. `responses[k]` is the number of the reply or observation
    that it belongs to, as it was added. `sampled[k]` is the log-probability, in nats, with which it was sampled, NaN
    where that is not known. `layout` says what attends to what. `replayed` is the example's. `parts` are the trees that
    it was joined of, if it was: their counted tokens, in their order, are its own.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    layout: TreeLayout
    targets: torch.Tensor
    predictors: torch.Tensor
    weights: torch.Tensor
    responses: torch.Tensor
    sampled: torch.Tensor
    replayed: bool = False
    parts: tuple["Part", ...] = ()

    @property
    def length(self) -> int:
        return int(self.ids.numel())

    def on(self, device: torch.device) -> "Tree":
        """The same tree on a device."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        moved: dict[str, Any] = {
            name: each.to(device) for name, each in fields.items() if isinstance(each, torch.Tensor | TreeLayout)
        }
        return replace(self, **moved, parts=tuple(replace(part, tree=part.tree.on(device)) for part in self.parts))

    def split(self, counted: torch.Tensor) -> list[tuple["Tree", torch.Tensor]]:
        """Each tree that this one was joined of, or itself, with its part of values of the counted tokens."""
        trees = [part.tree for part in self.parts] or [self]
        return list(zip(trees, counted.split([len(tree.targets) for tree in trees]), strict=True))


@dataclass(frozen=True, slots=True)
class Part:
    """A tree in a joined one. Shape: `places`, (length of `tree`,), are the indexes of its tokens there."""

    tree: Tree
    places: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Counted:
    """The weight of a token: see `Tree`."""

    weight: float
    response: int
    sampled: float


class TreeBuilder:
    """A tree under construction; it begins as the tokens of `reference`."""

    def __init__(self, reference: Turn) -> None:
        self._reference = reference.ids
        self._ids = list(reference.ids)
        self._positions = list(range(len(self._ids)))
        self._counted: dict[int, _Counted] = {}
        self._segments = [Segment(0, len(self._ids), -1)]
        self._responses = 0

    def length_with(self, turn: Turn, shared: int) -> int:
        """Return the length of the tree with `turn` added."""
        return len(self._ids) + max(0, turn.written[1] - self._shared(turn, shared))

    def add(self, turn: Turn, weight: float, shared: int | None = None, sampled: Sequence[float] = ()) -> int:
        """Count what is written in `turn`, as a branch where its tokens, or those after `shared`, are of its own.

        `sampled` are the log-probabilities of the written tokens; others than these tokens' are not taken. Returns the
        number of the response.
        """
        begin, end = turn.written
        known = sampled if len(sampled) == end - begin else [float("nan")] * (end - begin)
        response = self._responses
        self._responses += 1
        common = self._shared(turn, shared)
        counted = {index: _Counted(weight, response, known[index - begin]) for index in range(begin, end)}
        self._counted |= {index: token for index, token in counted.items() if index < common}
        if end > common:
            start = len(self._ids)
            self._ids += turn.ids[common:end]
            self._positions += range(common, end)
            self._counted |= {start + index - common: token for index, token in counted.items() if index >= common}
            self._segments.append(Segment(start, len(self._ids), common - 1))
        return response

    def tree(self) -> Tree:
        """The tree as it was built; tokens of weight 0 do not count."""
        counted = sorted(index for index, token in self._counted.items() if token.weight)
        tokens = [self._counted[index] for index in counted]
        return Tree(
            ids=torch.tensor(self._ids),
            positions=torch.tensor(self._positions),
            layout=tree_layout(self._segments),
            targets=torch.tensor(counted, dtype=torch.long),
            predictors=torch.tensor(predictors(self._segments, counted), dtype=torch.long),
            weights=torch.tensor([token.weight for token in tokens]),
            responses=torch.tensor([token.response for token in tokens], dtype=torch.long),
            sampled=torch.tensor([token.sampled for token in tokens]),
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
