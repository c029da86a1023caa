"""Experiential GRPO: beside the attempts of the present policy, replay what earlier ones succeeded with.

A task's correctness is the share of successes among its latest attempts. Tasks of one correctness are a bucket. Replays
are taken from the buckets in proportion to exp(-(correctness - 1/2)^2 / 2): most from tasks that are neither sure nor
hopeless, none from those that always succeed. Of a task's past successes the one of the lowest entropy is replayed. It
joins the task's present group, whose advantages are computed with it; without a present group, its own attempts are the
baseline.

A replayed token gains f(r) A with f(r) = r / (r + 0.1), where r is the ratio to the policy that sampled it. That is not
clipped: likely tokens are damped, and unlikely ones, from which there is most to learn, keep their gradient. All others
count as in GRPO. Source: *ExGRPO* (arXiv 2510.02245); the shaping is that of LUFFY (arXiv
2504.14945).

Here the entropy is estimated by the mean negative log-probability that was recorded when the success was sampled, which
costs no forward pass; and buckets are apportioned instead of drawn, so that the selection can be repeated.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import fmean

import torch

from learners.objectives.grpo import Grpo, groups, ratios
from learners.objectives.objective import Example
from learners.packed_tree import Tree
from learners.packing import TreePacker, can_be_imitated
from learners.trajectories import Trajectory


@dataclass(frozen=True, slots=True)
class Experience:
    """A past success. `group` are the attempts among which it was one; `correctness` is its task's latest."""

    trajectory: Trajectory
    group: tuple[Trajectory, ...]
    correctness: float

    @property
    def entropy(self) -> float:
        """The mean negative log-probability of its tokens when they were sampled, in nats."""
        return -fmean(chain.from_iterable(self.trajectory.log_probabilities))


class ExGrpo(Grpo):
    """GRPO on the present policy's attempts and on replayed successes, a share of `replay` of all groups."""

    def __init__(self, name: str = "exgrpo", *, replay: float = 0.5, shaping: float = 0.1) -> None:
        super().__init__(name)
        self._replay = replay
        self._shaping = shaping

    def examples(self, trajectories: Sequence[Trajectory]) -> list[Example]:
        present, past = split(groups(trajectories))
        count = math.ceil(len(present) * self._replay / (1 - self._replay))
        chosen = {one.trajectory.task_id: one for one in select(experiences(present, past), count)}
        found = []
        for group in present:
            one = chosen.pop(group[0].task_id, None)
            found += self.weighed(group) if one is None else self._mixed(group, one.trajectory)
        for one in chosen.values():
            found += [
                replace(example, replayed=True)
                for example in self.weighed(one.group)
                if example.trajectory is one.trajectory
            ]
        return found

    def pack(self, example: Example, packer: TreePacker) -> Tree:
        return replace(super().pack(example, packer), replayed=example.replayed)

    def loss(self, tree: Tree, log_probabilities: torch.Tensor, reference: torch.Tensor | None) -> torch.Tensor:
        if not tree.replayed:
            return super().loss(tree, log_probabilities, reference)
        ratio = ratios(tree, log_probabilities, reference)
        shaped = ratio / (ratio + self._shaping)
        return self.divergence(ratio, log_probabilities, reference) - (shaped * tree.weights).sum()

    def _mixed(self, group: Sequence[Trajectory], success: Trajectory) -> list[Example]:
        weighed = self.weighed([*group, success])
        return [replace(example, replayed=example.trajectory is success) for example in weighed]


def split(found: Sequence[Sequence[Trajectory]]) -> tuple[list[Sequence[Trajectory]], list[Sequence[Trajectory]]]:
    """The groups of the adapter that practised last, and all others.

    Episode ids are UUIDv7, so the greatest is that of the last attempt.
    """
    if not found:
        return [], []
    last = max(found, key=_latest)[0].adapter
    return [group for group in found if group[0].adapter == last], [g for g in found if g[0].adapter != last]


def experiences(present: Sequence[Sequence[Trajectory]], past: Sequence[Sequence[Trajectory]]) -> list[Experience]:
    """The past successes that may be replayed, of each task the one of the lowest entropy; none of a retired task.

    A success whose log-probabilities were not recorded has no entropy, and no ratio: it is not replayed.
    """
    correctness = {
        group[0].task_id: fmean(member.success for member in group) for group in sorted([*past, *present], key=_latest)
    }
    best: dict[str, Experience] = {}
    for group in past:
        task = group[0].task_id
        for member in group:
            if correctness[task] < 1 and member.success and _recorded(member):
                one = Experience(member, tuple(group), correctness[task])
                best[task] = min(best.get(task, one), one, key=lambda each: each.entropy)
    return list(best.values())


def select(candidates: Sequence[Experience], count: int) -> list[Experience]:
    """`count` of the candidates, or all: from buckets of one correctness in proportion to their weights.

    Within a bucket those of the lowest entropy come first. Each next one is from the bucket that is furthest behind its
    share (the method of Sainte-Lague).
    """
    buckets: dict[float, list[Experience]] = defaultdict(list)
    for one in sorted(candidates, key=lambda each: (each.entropy, each.trajectory.episode_id)):
        buckets[one.correctness].append(one)
    taken = dict.fromkeys(buckets, 0)
    chosen: list[Experience] = []
    while len(chosen) < min(count, len(candidates)):
        left = [bucket for bucket in sorted(buckets) if taken[bucket] < len(buckets[bucket])]
        bucket = max(left, key=lambda each: math.exp(-((each - 0.5) ** 2) / 2) / (2 * taken[each] + 1))
        chosen.append(buckets[bucket][taken[bucket]])
        taken[bucket] += 1
    return chosen


def _latest(group: Sequence[Trajectory]) -> str:
    return max(member.episode_id for member in group)


def _recorded(trajectory: Trajectory) -> bool:
    """Return whether the log-probabilities of all its actions are known, and any of them can be imitated."""
    known = len(trajectory.log_probabilities) == len(trajectory.steps) and all(trajectory.log_probabilities)
    return known and any(can_be_imitated(step.action) for step in trajectory.steps)
