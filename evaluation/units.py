"""The units of a comparison: a task, or a family of variants, which are played together and count once.

Variants of one task succeed and fail together: counted one by one they would prove what they do not. `improvement` and
the gates that compare by tasks call this.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evaluation.rollouts import Pair
from evaluation.settings import Measure
from ratchet_client.events import Task, family
from streams.errors import GateError


@dataclass(frozen=True, slots=True)
class Unit:
    """Tasks of one environment whose ids differ only in what follows a `~`; `name` is what they share."""

    environment: str
    name: str
    tasks: tuple[Task, ...]


def units_of(tasks: Iterable[Task]) -> tuple[Unit, ...]:
    """The units that `tasks` make up, in the order of their first tasks. Raises `GateError` for a task given twice."""
    found: dict[tuple[str, str], dict[str, Task]] = defaultdict(dict)
    for task in tasks:
        variants = found[task.environment, family(task.task_id)]
        if task.task_id in variants:
            raise GateError(f"the task {task.task_id!r} is on the list twice: a gate's tasks must be distinct")
        variants[task.task_id] = task
    return tuple(Unit(environment, name, tuple(of.values())) for (environment, name), of in found.items())


def in_keyed_order(units: Iterable[Unit], key: str, candidate: str) -> tuple[Unit, ...]:
    """The units in the order in which `candidate` is to play them.

    A keyed hash of the unit and the candidate decides: an interrupted gate goes on in the same order, and nobody can
    put tasks first that suit a candidate.
    """
    secret = hashlib.blake2b(key.encode()).digest()

    def place(unit: Unit) -> bytes:
        named = "\0".join((candidate, unit.environment, unit.name)).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(named, key=secret, digest_size=16).digest()

    return tuple(sorted(units, key=place))


def unit_results(pairs: Iterable[Pair], measure: Measure = "success") -> list[float]:
    """The result of each unit that was played: the mean over its pairs of the candidate's less the champion's.

    From -1 to 1, in the order in which the units come first. A pair in which a score is not from 0 to 1 is never to the
    candidate's favour.
    """
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for pair in pairs:
        found[pair.task.environment, family(pair.task.task_id)].append(_difference(pair, measure))
    return [math.fsum(differences) / len(differences) for differences in found.values()]


def is_graded(units: Sequence[Unit], measure: Measure) -> bool:
    """Return whether results between -1, 0 and 1 can come; known before anything is played."""
    return measure == "score" or any(len(unit.tasks) > 1 for unit in units)


def _difference(pair: Pair, measure: Measure) -> float:
    champion, candidate = pair.champion, pair.candidate
    by_success = float(candidate.success) - float(champion.success)
    if not (0 <= champion.score <= 1 and 0 <= candidate.score <= 1):
        return min(by_success, 0.0) if measure == "success" else -1.0
    return by_success if measure == "success" else candidate.score - champion.score
