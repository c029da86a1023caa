"""The packed trees of each update: the examples of a stage in a random order, as many as an update takes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from transformers import PreTrainedModel

from learners.architecture import longest_exact
from learners.objectives.objective import Example, Objective
from learners.packed_tree import Tree
from learners.packing import TreePacker
from streams.errors import ChatTemplateError, TrainingError


class Source(Protocol):
    """The order in which examples are drawn, by their numbers."""

    def draw(self) -> int: ...

    def put_back(self, number: int) -> None:
        """The number is the next to be drawn."""
        ...


@dataclass(slots=True)
class Pool:
    """Draws the numbers below `count`, each once before any is drawn again. `left` are still to come in this round.

    With `weights`, (count,), those that weigh more come early in a round, as if it were drawn from an urn.
    """

    count: int
    generator: torch.Generator
    left: list[int] = field(default_factory=list)
    weights: torch.Tensor | None = None

    def draw(self) -> int:
        if not self.left:
            self.left = self._round().tolist()
        return self.left.pop()

    def put_back(self, number: int) -> None:
        """The number is the next to be drawn."""
        self.left.append(number)

    def _round(self) -> torch.Tensor:
        if self.weights is None:
            return torch.randperm(self.count, generator=self.generator)
        return torch.multinomial(self.weights, self.count, generator=self.generator).flip(0)


class Limits:
    """The tokens and positions that a model can read."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._vocabulary = int(model.config.get_text_config().vocab_size)
        self._longest = longest_exact(model.config)

    def check(self, tree: Tree) -> None:
        """Raises `ChatTemplateError` for a tree with a token or a position that the model does not have."""
        if int(tree.ids.max()) >= self._vocabulary:
            raise ChatTemplateError(f"the episode holds token {int(tree.ids.max())} of a model of {self._vocabulary}")
        if self._longest is not None and int(tree.positions.max()) >= self._longest:
            raise ChatTemplateError(f"the episode is longer than the {self._longest} tokens that the model reads")


class Packer:
    """Packs examples; notes in `left_out` what cannot be trained on: episode id, then the reason."""

    def __init__(self, packer: TreePacker, limits: Limits, left_out: dict[str, str]) -> None:
        self._packer = packer
        self._limits = limits
        self.left_out = left_out

    def pack(self, example: Example, objective: Objective) -> Tree | None:
        """The tree of `example`; None for what the chat template refuses or the model cannot read."""
        episode = example.trajectory.episode_id
        if episode in self.left_out:
            return None
        try:
            tree = objective.pack(example, self._packer)
            self._limits.check(tree)
        except ChatTemplateError as error:
            self.left_out[episode] = str(error)
            return None
        return tree


class Batches:
    """The batches of one stage: `trajectories` each or, with `tokens`, as many as hold no more than so many tokens.

    A tree that alone has more is a batch of its own.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        objective: Objective,
        packer: Packer,
        pool: Source,
        trajectories: int,
        tokens: int | None = None,
    ) -> None:
        self._examples = examples
        self._objective = objective
        self._packer = packer
        self._trajectories = trajectories
        self._tokens = tokens
        self._empty: set[int] = set()
        self.pool = pool

    def next(self) -> list[Tree]:
        """The trees of the next update. Raises `TrainingError` when none of the examples can be trained on."""
        while True:
            trees = self._of_tokens(self._tokens) if self._tokens else self._of_number()
            if trees:
                return trees
            self._check_any_is_left()

    def _check_any_is_left(self) -> None:
        left_out, count = self._packer.left_out, len(self._examples)
        reasons = {left_out.get(example.trajectory.episode_id) for example in self._examples}
        if None not in reasons:
            reason = left_out[self._examples[0].trajectory.episode_id]
            raise TrainingError(f"none of the {count} trajectories can be trained on: {reason}")
        if all(
            number in self._empty or example.trajectory.episode_id in left_out
            for number, example in enumerate(self._examples)
        ):
            raise TrainingError(
                f"nothing of what {self._objective.name} learns from counts in any of the {count} trajectories: where "
                "it compares alternatives, raise learner.max_length, into which they must fit"
            )

    def _of_number(self) -> list[Tree]:
        drawn = [self._pack(self.pool.draw()) for _ in range(self._trajectories)]
        return [tree for tree in drawn if tree is not None]

    def _of_tokens(self, most: int) -> list[Tree]:
        trees: list[Tree] = []
        total = 0
        # Each example is drawn twice at most: a batch may be larger than what there is to learn from.
        for _ in range(2 * len(self._examples)):
            number = self.pool.draw()
            tree = self._pack(number)
            if tree is None:
                continue
            if trees and total + tree.length > most:
                self.pool.put_back(number)
                break
            trees.append(tree)
            total += tree.length
        return trees

    def _pack(self, number: int) -> Tree | None:
        """The tree of an example; None for one that cannot be trained on, or of which nothing counts."""
        tree = self._packer.pack(self._examples[number], self._objective)
        if tree is not None and not self._objective.size(tree):
            self._empty.add(number)
            return None
        return tree
