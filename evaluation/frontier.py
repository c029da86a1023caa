"""The tasks that are worth practising: those that the policy solves now and then. Pure.

A group of attempts that all succeed, or all fail, tells no action from another. So tasks are kept in buckets by how
many of their latest attempts succeeded, as in ExGRPO (arXiv 2510.02245), and drawn from the buckets in between with the
variance of an attempt's success, p (1 - p), as their weight. Some of a round is kept for tasks never tried, and a
little for solved and hopeless ones, since the policy changes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import floor
from random import Random

from ratchet_client.events import Task


class Bucket(StrEnum):
    """The buckets of tasks: never tried, solved now and then, always, and never."""

    UNSEEN = "unseen"
    FRONTIER = "frontier"
    SOLVED = "solved"
    HOPELESS = "hopeless"


@dataclass(frozen=True, slots=True)
class Attempts:
    """The latest attempts at a task, all of one adapter."""

    attempts: int = 0
    successes: int = 0

    @property
    def bucket(self) -> Bucket:
        if not self.attempts:
            return Bucket.UNSEEN
        if not self.successes:
            return Bucket.HOPELESS
        return Bucket.SOLVED if self.successes == self.attempts else Bucket.FRONTIER

    @property
    def weight(self) -> float:
        """The variance of an attempt's success, from 0 to 1/4."""
        rate = self.successes / self.attempts if self.attempts else 0.0
        return rate * (1 - rate)


def choose(
    tasks: Sequence[Task], known: Mapping[str, Attempts], count: int, explore: float, revisit: float, seed: int
) -> tuple[Task, ...]:
    """Choose `count` of the tasks for a round, each once; all of them where there are no more.

    `known` has the latest attempts by task id. At least the share `explore` of the round is for tasks never tried and
    `revisit` for those always or never solved, rounded down, as far as there are such; the rest is for the frontier.
    What the frontier does not fill goes to tasks never tried, and then to the others. The same arguments, in any order
    of the tasks, give the same choice.
    """
    random = Random(seed)
    drawn: dict[Bucket, list[Task]] = {bucket: [] for bucket in Bucket}
    for task in _drawn(tasks, known, random):
        drawn[known.get(task.task_id, Attempts()).bucket].append(task)
    settled = drawn[Bucket.SOLVED] + drawn[Bucket.HOPELESS]
    random.shuffle(settled)
    fresh, frontier = drawn[Bucket.UNSEEN], drawn[Bucket.FRONTIER]
    # A share such as 0.05 * 20 must not lose a task to the representation of the product.
    kept_fresh = min(len(fresh), floor(explore * count + 1e-9))
    kept_settled = min(len(settled), floor(revisit * count + 1e-9))
    chosen = fresh[:kept_fresh] + settled[:kept_settled]
    chosen += [*frontier, *fresh[kept_fresh:], *settled[kept_settled:]][: max(0, count - len(chosen))]
    return tuple(chosen[:count])


def _drawn(tasks: Sequence[Task], known: Mapping[str, Attempts], random: Random) -> list[Task]:
    """The tasks, each once, in the order of a weighted draw without replacement (Efraimidis and Spirakis 2006)."""
    keys: dict[str, tuple[float, Task]] = {}
    for task_id, task in sorted({task.task_id: task for task in tasks}.items()):
        weight = known.get(task_id, Attempts()).weight or 1.0
        keys[task_id] = (random.random() ** (1 / weight), task)
    return [task for _, task in sorted(keys.values(), key=lambda keyed: -keyed[0])]
