"""Experience replay: what is new, what is older and what the base model says are drawn apart, each for its share.

Older is what the adapter that is trained on from has learned from already (`Trajectory.older`); the base model's own
answers keep the policy near it. Sources: *Learning to Learn without Forgetting by Maximizing Transfer and Minimizing
Interference* (MER, arXiv 1810.11910) for replay of all that was seen, in small shares; *Prioritized Experience Replay*
(arXiv 1511.05952) for weights of 1 / rank; *Experience Replay with Likelihood-free Importance Weights* (arXiv
2006.13169) for preferring what is near the present policy's states, here by their similarity hashes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from learners.batches import Pool
from learners.objectives.objective import Example
from learners.settings import ReplaySettings
from learners.trajectories import BASE_SAMPLE, Trajectory
from streams.trust.simhash import simhash


@dataclass(frozen=True, slots=True)
class Part:
    """The examples `numbers`, of which `pool` draws places, for their `share` of all that is drawn."""

    numbers: tuple[int, ...]
    pool: Pool
    share: float


class Mixture:
    """Draws from several parts, each time from one of them with the probability that is its share.

    A part alone is drawn from without a random number of the mixture's own.
    """

    def __init__(self, parts: Sequence[Part], generator: torch.Generator) -> None:
        self._parts = parts
        self._generator = generator
        self._shares = torch.tensor([part.share for part in parts], dtype=torch.float64)

    @property
    def left(self) -> list[list[int]]:
        """What is still to come in the round of each part, as a checkpoint keeps it."""
        return [part.pool.left for part in self._parts]

    def restore(self, left: Sequence[Sequence[int]]) -> None:
        """Go on where `left` was read."""
        for part, places in zip(self._parts, left, strict=True):
            part.pool.left = list(places)

    def draw(self) -> int:
        which = 0
        if len(self._parts) > 1:
            which = int(torch.multinomial(self._shares, 1, generator=self._generator))
        part = self._parts[which]
        return part.numbers[part.pool.draw()]

    def put_back(self, number: int) -> None:
        """The number is the next to be drawn of its part."""
        part = next(part for part in self._parts if number in part.numbers)
        part.pool.put_back(part.numbers.index(number))


def mixture(examples: Sequence[Example], settings: ReplaySettings, generator: torch.Generator) -> Mixture:
    """The examples as the settings want them drawn: all evenly, or what is new, older and the base's apart.

    Where nothing is new, what is older takes its place; a part that has nothing leaves its share to the new.
    """
    new = [number for number, example in enumerate(examples) if _kind(example) == "new"]
    older = [number for number, example in enumerate(examples) if _kind(example) == "older"]
    base = [number for number, example in enumerate(examples) if _kind(example) == BASE_SAMPLE]
    if not settings.enabled or not (new or older):
        return Mixture([Part(tuple(range(len(examples))), Pool(len(examples), generator), 1.0)], generator)
    weights = None
    if not new:
        new, older = older, []
    elif older and settings.prioritised:
        weights = by_rank(distances(*([examples[one].trajectory for one in numbers] for numbers in (older, new))))
    shares = ((older, settings.share, weights), (base, settings.base_share, None))
    drawn = [(numbers, share, weighed) for numbers, share, weighed in shares if numbers and share]
    drawn.insert(0, (new, 1 - sum(share for _, share, _ in drawn), None))
    parts = [
        Part(tuple(numbers), Pool(len(numbers), generator, weights=weighed), share) for numbers, share, weighed in drawn
    ]
    return Mixture(parts, generator)


def with_replay(new: Sequence[Trajectory], older: Sequence[Trajectory]) -> list[Trajectory]:
    """The trajectories `new`, in which those that are among `older` are marked so, and the others of `older`.

    It filters nothing: what consent was revoked of, or what lost trust, must not be in either.

    >>> from learners.trajectories import Trajectory
    >>> a, b, c = (Trajectory(name, "task", (), ()) for name in "abc")
    >>> [(one.episode_id, one.older) for one in with_replay([b, c], [a, b])]
    [('b', True), ('c', False), ('a', True)]
    """
    known, held = {one.episode_id for one in older}, {one.episode_id for one in new}
    marked = [replace(one, older=one.older or one.episode_id in known) for one in new]
    return marked + [replace(one, older=True) for one in older if one.episode_id not in held]


def distances(older: Sequence[Trajectory], new: Sequence[Trajectory]) -> torch.Tensor:
    """How many bits of 64 the similarity hash of each older trajectory is from the nearest new one's: (older,)."""
    hashes = np.array([_hash(one) for one in new], dtype=np.uint64)
    return torch.tensor([int(np.bitwise_count(hashes ^ np.uint64(_hash(one))).min()) for one in older])


def by_rank(distances: torch.Tensor) -> torch.Tensor:
    """Weights of 1 / rank, of which the nearest has rank 1; of equally near ones the first is ranked higher.

    >>> by_rank(torch.tensor([9, 0, 4])).tolist()
    [0.3333333432674408, 1.0, 0.5]
    """
    ranks = torch.empty(len(distances))
    ranks[distances.argsort(stable=True)] = torch.arange(1, len(distances) + 1, dtype=ranks.dtype)
    return 1 / ranks


def _kind(example: Example) -> str:
    if example.trajectory.actor_kind == BASE_SAMPLE:
        return BASE_SAMPLE
    return "older" if example.trajectory.older else "new"


def _hash(trajectory: Trajectory) -> int:
    """The similarity hash of what the actor read: the states, which grow, without the actions."""
    read = [message for step in trajectory.steps for message in step.observation]
    return simhash("\n".join(message.text for message in (*trajectory.opening, *read) if message.role != "system"))
