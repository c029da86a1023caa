"""Whether a figure of a process grows: a robust slope over all the lives that the process had. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_MOST_POINTS = 300
_FEWEST_PAIRS = 30
_HOUR_S = 3600.0

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Growth:
    """`per_hour` is the slope, `median` the usual value, and `longest_s` the longest life that was measured."""

    per_hour: float
    median: float
    longest_s: float

    def total(self) -> float:
        """How much it grows in the longest life."""
        return self.per_hour * self.longest_s / _HOUR_S


def growth(lives: Sequence[Sequence[Point]], warm_up_s: float) -> Growth | None:
    """The median of the slopes between any two points of one life, as of Theil (1950) and Sen (1968).

    A point is (seconds, value); `lives` are of one process and those that were started after it died. The first
    `warm_up_s` seconds of each are left out. Up to 29% of the points may be anything at all without an effect.
    Returns None where there are too few to say.

    >>> growth([[(second, 5.0 + second / 3600) for second in range(100)]], 10.0).per_hour
    1.0
    """
    slopes, values, longest = list[np.ndarray](), list[float](), 0.0
    for life in lives:
        points = np.array([point for point in life if point[0] - life[0][0] >= warm_up_s])
        if len(points) < 2:
            continue
        points = points[np.linspace(0, len(points) - 1, min(len(points), _MOST_POINTS)).astype(int)]
        first, second = np.triu_indices(len(points), 1)
        times = points[second, 0] - points[first, 0]
        slopes.append((points[second, 1] - points[first, 1])[times > 0] / times[times > 0])
        values += points[:, 1].tolist()
        longest = max(longest, float(points[-1, 0] - points[0, 0]))
    if sum(map(len, slopes)) < _FEWEST_PAIRS:
        return None
    per_second = float(np.median(np.concatenate(slopes)))
    return Growth(round(per_second * _HOUR_S, 3), float(np.median(values)), longest)
