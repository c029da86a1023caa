"""A trial's record as a person reads it: each task as the candidate and what it was compared with played it.

`ratchet gate show` prints these.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum

from evaluation.rollout_log import Entry
from ratchet_client.events import Task
from ratchet_client.settings import FrozenModel


class Result(StrEnum):
    """The candidate's result: `win` means that it alone solved the task, `loss` that the other alone did.

    `excluded` means that one of the two could not play it, `unpaired` that one of the two has not played it.
    """

    WIN = "win"
    LOSS = "loss"
    TIE = "tie"
    EXCLUDED = "excluded"
    UNPAIRED = "unpaired"


class Match(FrozenModel):
    """A task of the gate `gate`, as the candidate and the adapter `other` played it for the time `repeat`."""

    gate: str
    task: Task
    repeat: int
    other: str
    result: Result
    by_other: Entry | None
    by_candidate: Entry | None


def matches(entries: Sequence[Entry], candidate: str) -> Iterator[Match]:
    """The matches of the trial of `candidate`, gate by gate in the order in which the gates were played.

    A task that the candidate has not played yet, or that it alone has played, is unpaired. An adapter that played for
    other `conditions` than the newest entry of a gate did, before settings were changed, is left out.
    """
    for gate in dict.fromkeys(entry.gate for entry in entries):
        of_gate = [entry for entry in entries if entry.gate == gate]
        played = {
            (entry.adapter, entry.task.task_id, entry.repeat): entry
            for entry in of_gate
            if entry.conditions == of_gate[-1].conditions
        }
        others = dict.fromkeys(adapter for adapter, _, _ in played if adapter != candidate)
        places = dict.fromkeys((task_id, repeat) for _, task_id, repeat in played)
        for other in others or {"": None}:
            for task_id, repeat in places:
                by_other, by_candidate = (played.get((adapter, task_id, repeat)) for adapter in (other, candidate))
                either = by_candidate or by_other
                if either is not None:
                    result = _result(by_other, by_candidate)
                    yield Match(
                        gate=gate,
                        task=either.task,
                        repeat=repeat,
                        other=other,
                        result=result,
                        by_other=by_other,
                        by_candidate=by_candidate,
                    )


def _result(by_other: Entry | None, by_candidate: Entry | None) -> Result:
    if any(entry is not None and entry.rollout is None for entry in (by_other, by_candidate)):
        return Result.EXCLUDED
    if by_other is None or by_candidate is None or by_other.rollout is None or by_candidate.rollout is None:
        return Result.UNPAIRED
    if by_other.rollout.success == by_candidate.rollout.success:
        return Result.TIE
    return Result.WIN if by_candidate.rollout.success else Result.LOSS
