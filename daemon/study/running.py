"""Runs the cells of a study that have no result yet. What is finished is kept: a study may take several sittings."""

import subprocess
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import mean

from daemon.config import Settings
from daemon.console import Narrator
from daemon.study.course import Course, Learned
from daemon.study.plan import Cell, StudyPlan
from daemon.study.results import CellResult, Results
from daemon.study.workshop import PlayedTask, Workshop, workshop
from ratchet_client.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Study:
    """A study: `folder` keeps what it is made of, and `results` the small files of its finished cells."""

    plan: StudyPlan
    folder: Path
    results: Results
    settings: Settings
    narrator: Narrator

    async def run(self, most: int | None = None) -> list[CellResult]:
        """Run the cells that are missing, `most` of them at most, and return all results that there are.

        Raises `RatchetError` where a cell cannot be run; those before it are kept.
        """
        missing = [cell for cell in self.plan.cells() if self.results.find(cell) is None]
        todo = missing if most is None else missing[:most]
        if todo:
            settings = self.settings.model_copy(update={"model": self.plan.model})
            async with workshop(self.folder, settings, self.narrator) as opened:
                await self._run(opened, todo)
        return [found for cell in self.plan.cells() if (found := self.results.find(cell)) is not None]

    async def _run(self, opened: Workshop, todo: Sequence[Cell]) -> None:
        began, code = time.monotonic(), code_version()
        for done, cell in enumerate(todo, start=1):
            result = await self._one(opened, cell, code)
            self.results.keep(result)
            left = (time.monotonic() - began) / done * (len(todo) - done)
            told = f"{cell.data.name}, {cell.arm_name}, seed {cell.data.seed}"
            self.narrator.say(f"cell {done} of {len(todo)}: {told}: success {result.success:.3f}")
            self.narrator.advance("cells", done, len(todo), f"about {duration(left)} left")

    async def _one(self, opened: Workshop, cell: Cell, code: str) -> CellResult:
        began = time.monotonic()
        course = Course(opened, cell, self.settings.learner.threads, self._scale(cell))
        place = 0
        if len(cell.arm.variants) > 1:
            shown = [
                await course.validate((await course.learn(variant, measure=False)).adapter)
                for variant in cell.arm.variants
            ]
            place = shown.index(max(shown))
        learned = await course.learn(cell.arm.variants[place], measure=True)
        played = await course.play(learned.adapter)
        return _result(cell, place, learned, played, time.monotonic() - began, code)

    def _scale(self, cell: Cell) -> float:
        """The number by which updates are multiplied so that the arm reads as many tokens as the baseline.

        Raises `ConfigurationError` when the cells that tell the tokens have no result.
        """
        if cell.budget == "updates":
            return 1.0
        known = {
            (other.arm_name, other.budget): self.results.find(other)
            for other in self.plan.cells()
            if other.data.data_id == cell.data.data_id
        }
        own, baseline = known.get((cell.arm_name, "updates")), known.get((self.plan.baseline, "updates"))
        if own is None or baseline is None:
            raise ConfigurationError(
                'a budget of tokens is measured by the same arm at equal updates: name "updates" first in `budgets`'
            )
        return baseline.tokens / max(1, own.tokens)


def code_version() -> str:
    """The version of Ratchet and, in a clone of its repository, the commit, with `-dirty` where files were changed."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        described = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return version("ratchetd")  # installed from a package, there is no repository
    return f"{version('ratchetd')} {described.stdout.strip()}"


def duration(seconds: float) -> str:
    """Hours and minutes.

    >>> duration(59), duration(3660)
    ('1 min', '1 h 01 min')
    """
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def _result(
    cell: Cell, variant: int, learned: Learned, played: Sequence[PlayedTask], seconds: float, code: str
) -> CellResult:
    losses: dict[str, list[float]] = defaultdict(list)
    for update in learned.updates:
        losses[update.objective].append(round(update.loss, 4))
    return CellResult(
        cell=cell,
        solved={task.task_id: task.success for task in played},
        mean_score=mean(task.score for task in played),
        invalid_actions=sum(task.invalid_actions for task in played) / max(1, sum(task.steps for task in played)),
        variant=variant,
        updates=len(learned.updates),
        tokens=sum(update.tokens for update in learned.updates),
        losses={objective: tuple(values) for objective, values in losses.items()},
        seconds=round(seconds, 1),
        measured=tuple(learned.measured),
        practised=learned.practised,
        skipped=tuple(learned.skipped),
        code=code,
    )
