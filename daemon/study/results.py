"""The results of cells, one JSON file each, and the comparison of arms on the same tasks."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from pathlib import Path
from statistics import mean, variance
from typing import TypeAlias

from pydantic import ValidationError
from scipy.stats import t

from daemon.study.plan import Cell
from evaluation.statistics import Interval
from ratchet_client.errors import ConfigurationError
from ratchet_client.settings import FrozenModel
from streams.runtime.files import write_atomically

# The name under which the tasks of the domain's `out_of_domain_fold` are measured.
OUT_OF_DOMAIN = "out of domain"


class Measurement(FrozenModel):
    """The play of the adapter after the phase number `phase`, when `practised` episodes had been played for practice.

    `domain` is the domain whose held-out tasks were played, by the plan's name, or `OUT_OF_DOMAIN`.
    """

    phase: int
    domain: str
    practised: int
    solved: dict[str, bool]

    @property
    def success(self) -> float:
        """The share of held-out tasks that were solved."""
        return mean(self.solved.values())


class CellResult(FrozenModel):
    """The play of a cell's adapter. `solved` says of each held-out task, by id, whether it was solved.

    `variant` is the place of the arm's variant that was chosen, `losses` the mean loss of each update in nats per
    counted token, by objective, `tokens` what was read in all updates. `measured` is what was played on the way, and
    in the end of other domains; `practised` counts the episodes of practice, and `skipped` names the objectives that
    found nothing to learn from. `seconds` are those of this cell: what it shares with an earlier one takes none.
    `code` is the version that it ran on.
    """

    cell: Cell
    solved: dict[str, bool]
    mean_score: float
    invalid_actions: float
    variant: int
    updates: int
    tokens: int
    losses: dict[str, tuple[float, ...]]
    seconds: float
    measured: tuple[Measurement, ...] = ()
    practised: int = 0
    skipped: tuple[str, ...] = ()
    code: str = ""

    @property
    def success(self) -> float:
        """The share of held-out tasks that were solved."""
        return mean(self.solved.values())


class Results:
    """The results of studies in `folder`, a file for each cell."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, cell: Cell) -> CellResult | None:
        """The result of a cell, None where there is none yet. Raises `ConfigurationError` for a damaged one."""
        path = self._path(cell)
        try:
            found = CellResult.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise ConfigurationError(
                f"{path} is not a cell's result: {error}. Remove it to have it done again"
            ) from error
        # The same work may be known by other names now.
        named = found.cell.model_copy(
            update={
                "arm_name": cell.arm_name,
                "data": found.cell.data.model_copy(update={"name": cell.data.name}),
            }
        )
        # An id leaves out what is as by default: where a default has changed since, it is other work.
        if named != cell:
            return None
        renamed = tuple(
            each.model_copy(update={"domain": cell.data.name}) if each.domain == found.cell.data.name else each
            for each in found.measured
        )
        return found.model_copy(update={"cell": cell, "measured": renamed})

    def keep(self, result: CellResult) -> None:
        """Write the result, whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path(result.cell), result.model_dump_json().encode() + b"\n")

    def _path(self, cell: Cell) -> Path:
        return self._folder / f"{cell.cell_id}.json"


_Condition: TypeAlias = tuple[str, int, int, float]


class Difference(FrozenModel):
    """An arm against the baseline under the same conditions, over `seeds` seeds and `tasks` held-out tasks.

    `success` is the arm's, `baseline` that of the arm that it is compared with; `spread` its lowest and highest success
    of a seed. `difference` is the mean of the paired differences, with a 95% interval from `low` to `high`, None for
    a single task.
    """

    domain: str
    arm: str
    budget: str
    demonstrations: int
    alternatives: int
    wrong: float
    seeds: int
    tasks: int
    success: float
    spread: tuple[float, float]
    baseline: float
    difference: float
    low: float | None
    high: float | None


def differences(results: Iterable[CellResult], baseline: str) -> list[Difference]:
    """Every arm against the baseline on the same data and tasks; what the baseline has not played is left out."""
    played: dict[_Condition, dict[tuple[str, str], dict[int, CellResult]]] = {}
    for result in results:
        data = result.cell.data
        condition = (data.name, data.demonstrations, data.alternatives, data.wrong)
        by_arm = played.setdefault(condition, {})
        by_arm.setdefault((result.cell.arm_name, result.cell.budget), {})[data.seed] = result
    found = []
    for by_arm in played.values():
        reference = by_arm.get((baseline, "updates"), {})
        for (arm, _), by_seed in by_arm.items():
            pairs = [(by_seed[seed], reference[seed]) for seed in sorted(by_seed.keys() & reference.keys())]
            if pairs:
                found.append(_difference(arm, pairs))
    return found


def _difference(arm: str, pairs: Sequence[tuple[CellResult, CellResult]]) -> Difference:
    by_task: dict[str, list[int]] = defaultdict(list)
    for one, other in pairs:
        for task in one.solved.keys() & other.solved.keys():
            by_task[task].append(one.solved[task] - other.solved[task])
    interval = paired_interval(by_task)
    cell, successes = pairs[0][0].cell, [one.success for one, _ in pairs]
    return Difference(
        domain=cell.data.name,
        arm=arm,
        budget=cell.budget,
        demonstrations=cell.data.demonstrations,
        alternatives=cell.data.alternatives,
        wrong=cell.data.wrong,
        seeds=len(pairs),
        tasks=len(by_task),
        success=mean(successes),
        spread=(min(successes), max(successes)),
        baseline=mean(other.success for _, other in pairs),
        difference=mean(map(mean, by_task.values())),
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
    )


def paired_interval(by_task: Mapping[str, Sequence[float]], confidence: float = 0.95) -> Interval | None:
    """Student's interval of the mean difference; a task, whose seeds are alike, is one observation. None for one task.

    It speaks of these seeds on tasks like these, and not of other seeds: their spread is told beside it.

    >>> interval = paired_interval({"a": [1, 1], "b": [0, 0], "c": [1, 0], "d": [0, 0]})
    >>> round(interval.low, 2), round(interval.high, 2)
    (-0.39, 1.14)
    """
    means = [mean(values) for values in by_task.values()]
    if len(means) < 2:
        return None
    middle, error = mean(means), sqrt(variance(means) / len(means))
    reach = float(t.ppf((1 + confidence) / 2, len(means) - 1)) * error
    return Interval(middle - reach, middle + reach)
