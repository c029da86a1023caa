"""Measured points of `benchmarks.scaling`: what was run, how fast it was, and where the processors' time went."""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from ratchet_client.settings import FrozenModel

POINTS = Path(__file__).with_name("scaling.json")
"""Points that are kept: the figures of `benchmarks.capacity`, and the table of `docs/scale.md`."""
BROKER, POSTGRES, OTHERS = "broker", "postgres", "others"


class Kind(StrEnum):
    """The role that was started several times, and for record roles the store."""

    FILE = "file"
    LAKE = "lake"
    BRANCH = "branch"


class Point(FrozenModel):
    """One configuration, and what it did in the time from when all its processes worked until the backlog was done.

    `counted` events were stored, or states branched, in `seconds`. `cores` is the number of processors, and `core_s`
    the processor seconds of each process in that time: `role-N` or `worker-N`, what it started as `…/children`,
    `broker`, `postgres`, and as `others` all that other programs took. `transactions` and `write_s` are those of the
    record roles together: how many, and the seconds they took, waits for a turn included. `bare_per_s` is the limit:
    a bare consumer that inserts as many rows, or the plain loop over the same states times the processors.
    """

    kind: Kind
    workers: int
    partitions: int
    counted: int
    seconds: float
    cores: int
    core_s: Mapping[str, float]
    transactions: int = 0
    write_s: float = 0.0
    bare_per_s: float | None = None

    @property
    def per_s(self) -> float:
        """Events or states per second."""
        return self.counted / self.seconds

    @property
    def of_roles(self) -> float:
        """Processor seconds of the roles' own processes."""
        return sum(used for name, used in self.core_s.items() if _is_role(name) and "/" not in name)

    @property
    def of_children(self) -> float:
        """Processor seconds of what the roles started: sandboxes, and the Java machines in them."""
        return sum(used for name, used in self.core_s.items() if _is_role(name) and "/" in name)

    @property
    def of_postgres(self) -> float:
        """Processor seconds of PostgreSQL and its connections."""
        return sum(used for name, used in self.core_s.items() if name.startswith(POSTGRES))

    @property
    def of_broker(self) -> float:
        """Processor seconds of the broker."""
        return self.core_s.get(BROKER, 0.0)

    @property
    def of_others(self) -> float:
        """Processor seconds of other programs, and of the measuring itself."""
        return self.core_s.get(OTHERS, 0.0)


class Points(FrozenModel):
    """Points of one run or of several, by kind, partitions and processes.

    `seen` is the day of the last run, and `load` the average of the minute before it began. `ratio` is the least of the
    points' rates by their limits.
    """

    seen: str
    load: float
    ratio: float
    points: tuple[Point, ...]

    @classmethod
    def of(cls, points: Iterable[Point], seen: str, load: float) -> "Points":
        """Those of one run."""
        points = tuple(sorted(points, key=_key))
        ratio = min((point.per_s / point.bare_per_s for point in points if point.bare_per_s), default=0.0)
        return cls(seen=seen, load=load, ratio=round(ratio, 3), points=points)

    def over(self, earlier: "Points") -> "Points":
        """These, and those of `earlier` that were not measured again."""
        points = {_key(point): point for point in (*earlier.points, *self.points)}
        return Points.of(points.values(), self.seen, self.load)


def _is_role(name: str) -> bool:
    return name.startswith(("role-", "worker-"))


def markdown(points: Sequence[Point]) -> str:
    """The table of `docs/scale.md`.

    `speed-up` is over the point of the same kind and partitions with one process. Of the processors' time in that
    window: what one event or state took of the roles, of what they started and of the broker and PostgreSQL, in
    microseconds; and how busy the processors were, with others' share.
    """
    head = "| what | processes | partitions | per s | speed-up | of the limit | us of the roles | of sandboxes |"
    lines = [f"{head} of broker, PostgreSQL | batch | busy, others' |", "|---" * 11 + "|"]
    for point in points:
        alone = next((each for each in points if _key(each) == (*_key(point)[:2], 1)), None)
        speed_up = f"{point.per_s / alone.per_s:.2f}" if alone else ""
        limit = f"{point.per_s / point.bare_per_s:.2f}" if point.bare_per_s else ""
        us = [
            f"{1e6 * used / point.counted:.0f}"
            for used in (point.of_roles, point.of_children, point.of_broker + point.of_postgres)
        ]
        batch = f"{point.counted / point.transactions:.0f}" if point.transactions else ""
        capacity = point.cores * point.seconds
        busy = f"{sum(point.core_s.values()) / capacity:.0%}, {point.of_others / capacity:.0%}"
        cells = (
            f"{NAMES[point.kind]} | {point.workers} | {point.partitions} | {point.per_s:,.0f} | {speed_up} | {limit}",
            f"{us[0]} | {us[1]} | {us[2]} | {batch} | {busy}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


NAMES = {
    Kind.FILE: "record role, DuckDB file",
    Kind.LAKE: "record roles, lake",
    Kind.BRANCH: "branch workers",
}


def _key(point: Point) -> tuple[int, int, int]:
    return list(Kind).index(point.kind), point.partitions, point.workers
