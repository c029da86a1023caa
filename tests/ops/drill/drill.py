"""The table of drills: for each alert, the trouble that it is for, and the remedy that its runbook gives."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tests.ops.drill.page import Page
from tests.ops.drill.system import System

Course: TypeAlias = Callable[[System, Page], Generator[None]]
"""A drill as it is held. It gives way twice: when all is well, and when there is trouble; then it does what the page
says, and the trouble must be over."""


@dataclass(frozen=True)
class Drill:
    """A drill of `alert`, which is watched for in what `roles` say.

    One that `looks_back` resolves when the trouble has left its window: to wait for that, the drill has a Prometheus
    whose window begins after the remedy. `past` gives what Prometheus knows of before.
    """

    alert: str
    name: str
    course: Course
    roles: tuple[str, ...]
    looks_back: bool
    past: Callable[[], str] | None


DRILLS: list[Drill] = []


def drill(
    alert: str, roles: Sequence[str], *, looks_back: bool = False, past: Callable[[], str] | None = None
) -> Callable[[Course], Course]:
    """Enter a course into `DRILLS`."""

    def enter(course: Course) -> Course:
        DRILLS.append(Drill(alert, course.__name__, course, tuple(roles), looks_back, past))
        return course

    return enter
