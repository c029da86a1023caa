"""What practice adds and what learning a further domain costs, from the measurements on the way of each cell."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import mean

from daemon.study.results import OUT_OF_DOMAIN, CellResult, Measurement, paired_interval
from ratchet_client.settings import FrozenModel


class Retention(FrozenModel):
    """Success in a domain before and after the domains `others` were learned, over `seeds` seeds and `tasks` tasks.

    `difference` is the mean of the differences, paired by task, with a 95% interval from `low` to `high`, None for a
    single task: below 0 something was forgotten. `learned` is the success in the last of the others.
    """

    domain: str
    arm: str
    demonstrations: int
    others: tuple[str, ...]
    seeds: int
    tasks: int
    before: float
    after: float
    difference: float
    low: float | None
    high: float | None
    learned: float


class CurvePoint(FrozenModel):
    """Success after `practised` episodes of practice, the mean over `seeds` seeds, with the lowest and the highest."""

    practised: float
    success: float
    spread: tuple[float, float]
    seeds: int


def own_course(result: CellResult) -> list[Measurement]:
    """The measurements in the cell's own domain, in the order of its phases, the last of which is the result."""
    name, phases = result.cell.data.name, result.cell.arm.variants[result.variant].course
    on_the_way = [each for each in result.measured if each.domain == name]
    return [
        *on_the_way,
        Measurement(phase=len(phases), domain=name, practised=result.practised, solved=result.solved),
    ]


def retention(results: Iterable[CellResult]) -> list[Retention]:
    """Of each domain and arm that learned in others, too, and was measured before, what it has kept."""
    groups: dict[tuple[str, str, int], list[CellResult]] = defaultdict(list)
    for result in results:
        if result.cell.visits and result.cell.budget == "updates" and _before(result) is not None:
            data = result.cell.data
            groups[data.name, result.cell.arm_name, data.demonstrations].append(result)
    return [_retention(group) for group in groups.values()]


def _before(result: CellResult) -> Measurement | None:
    """The last measurement in the cell's own domain before another was learned in."""
    own, phases = result.cell.data.name, result.cell.arm.variants[result.variant].course
    first = next((number for number, phase in enumerate(phases) if phase.domain not in ("", own)), 0)
    found = [each for each in result.measured if each.domain == own and each.phase < first]
    return found[-1] if found else None


def _retention(group: Sequence[CellResult]) -> Retention:
    pairs = [(before, result) for result in group if (before := _before(result)) is not None]
    by_task: dict[str, list[int]] = defaultdict(list)
    for before, result in pairs:
        for task in before.solved.keys() & result.solved.keys():
            by_task[task].append(result.solved[task] - before.solved[task])
    interval, cell = paired_interval(by_task), group[0].cell
    elsewhere = [
        [each for each in result.measured if each.domain not in (cell.data.name, OUT_OF_DOMAIN)] for result in group
    ]
    return Retention(
        domain=cell.data.name,
        arm=cell.arm_name,
        demonstrations=cell.data.demonstrations,
        others=tuple(name for name in cell.visits if name != cell.data.name),
        seeds=len(pairs),
        tasks=len(by_task),
        before=mean(before.success for before, _ in pairs),
        after=mean(result.success for _, result in pairs),
        difference=mean(map(mean, by_task.values())),
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        learned=mean(measured[-1].success for measured in elsewhere),
    )


def practice_curves(results: Iterable[CellResult]) -> dict[tuple[str, str], list[CurvePoint]]:
    """Success by practice, by domain and arm, of the arms that practised and were measured on the way."""
    points: dict[tuple[str, str], dict[int, list[Measurement]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        course = own_course(result)
        if result.practised and len(course) > 1 and result.cell.budget == "updates":
            for each in course:
                points[result.cell.data.name, result.cell.arm_name][each.phase].append(each)
    return {key: [_point(measured) for _, measured in sorted(by_phase.items())] for key, by_phase in points.items()}


def _point(measured: Sequence[Measurement]) -> CurvePoint:
    successes = [each.success for each in measured]
    return CurvePoint(
        practised=mean(each.practised for each in measured),
        success=mean(successes),
        spread=(min(successes), max(successes)),
        seeds=len(measured),
    )
