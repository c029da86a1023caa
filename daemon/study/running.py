"""Runs the cells of a study that have no result yet. What is finished is kept: a study may take several sittings."""

import random
import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import mean

from daemon.config import Settings
from daemon.console import Narrator
from daemon.study.laboratory import Laboratory, laboratory
from daemon.study.plan import Cell, Data, StudyDomain, StudyPlan, Variant
from daemon.study.results import CellResult, Results
from evaluation.rollouts import Rollout
from learners.settings import LearnerSettings, Progress, Stage
from learners.snapshots import write_snapshot
from streams.branching.settings import BranchingSettings
from streams.errors import ConfigurationError
from streams.events import BranchRequest, Task
from streams.runtime.files import new_folder


@dataclass(frozen=True, slots=True)
class Study:
    """A study in its folder, which keeps the results and the data that they were learned from."""

    plan: StudyPlan
    folder: Path
    settings: Settings
    narrator: Narrator

    async def run(self, most: int | None = None) -> list[CellResult]:
        """Run the cells that are missing, `most` of them at most, and return all results that there are.

        Raises `RatchetError` where a cell cannot be run; those before it are kept.
        """
        results, missing = Results(self.folder), []
        for cell in self.plan.cells():
            if results.find(cell) is None:
                missing.append(cell)
        todo = missing if most is None else missing[:most]
        done = 0
        for _, group in groupby(todo, lambda cell: cell.data.name):
            cells = list(group)
            async with laboratory(self.narrator, _in_domain(self.settings, cells[0].data.domain)) as lab:
                for cell in cells:
                    results.keep(await self._one(lab, cell, results))
                    done += 1
                    self.narrator.advance("cells", done, len(todo), f"{cell.data.name}, {cell.arm_name}")
        return [found for cell in self.plan.cells() if (found := results.find(cell)) is not None]

    async def _one(self, lab: Laboratory, cell: Cell, results: Results) -> CellResult:
        began = time.monotonic()
        rng = random.Random(cell.data.seed)
        train = rng.sample(lab.train, len(lab.train))
        chosen, others = train[: cell.data.demonstrations], train[cell.data.demonstrations :]
        if len(chosen) < cell.data.demonstrations:
            raise ConfigurationError(
                f"{cell.data.name} has {len(train)} train tasks, fewer than {cell.data.demonstrations} demonstrations: "
                "ask for fewer"
            )
        snapshot = await self._snapshot(lab, cell.data, chosen)
        best: tuple[float, int, str, list[Progress]] | None = None
        for place, variant in enumerate(cell.arm.variants):
            name = f"{cell.cell_id[:12]}-{place}"
            updates = await lab.teach_with(self._learner(cell, variant, results), name, snapshot, cell.data.seed)
            shown = 0.0
            if len(cell.arm.variants) > 1:
                shown = _success(await lab.played(name, others[: cell.validation_tasks]))
            if best is None or shown > best[0]:
                best = (shown, place, name, updates)
        assert best is not None  # a plan's arms have variants
        _, place, name, updates = best
        rollouts = await self._played(lab, cell, name)
        for other in range(len(cell.arm.variants)):
            await lab.policy.unload_adapter(f"{cell.cell_id[:12]}-{other}")
        return _result(cell, rollouts, place, updates, time.monotonic() - began)

    async def _played(self, lab: Laboratory, cell: Cell, name: str) -> list[Rollout]:
        """The held-out tasks of the cell's own domain, or of the one in which it is played."""
        if cell.played is None:
            return await lab.played(name, lab.held_out[: cell.held_out_tasks])
        async with laboratory(self.narrator, _in_domain(self.settings, cell.played)) as other:
            await other.policy.load_adapter(name, str(lab.home / name))
            return await other.played(name, other.held_out[: cell.held_out_tasks])

    async def _snapshot(self, lab: Laboratory, data: Data, chosen: Sequence[Task]) -> Path:
        """The data as a snapshot, made once; it is kept in the study's folder."""
        home = self.folder / "data" / data.data_id
        found = [path.parent for path in home.glob("*/manifest.json")]
        if found:
            return found[0]
        requests = [await lab.demonstrated(task) for task in chosen]
        requests = await _with_wrong(lab, requests, round(data.wrong * len(requests)), data.seed)
        settings = BranchingSettings(
            alternatives=data.alternatives, samples=0, seed=data.seed, environments=data.domain.environments
        )
        trajectories = await lab.branched(requests, settings)
        with new_folder(home) as scratch:
            written = write_snapshot(trajectories, lab.settings.holdout, scratch, 0, {}).folder
            target = home / written.name
            shutil.move(written, target)
        return target

    def _learner(self, cell: Cell, variant: Variant, results: Results) -> LearnerSettings:
        return LearnerSettings(
            stages=self._stages(cell, variant, results),
            lora=cell.lora,
            learning_rate=variant.learning_rate,
            max_length=cell.max_length,
            threads=self.settings.learner.threads,
        )

    def _stages(self, cell: Cell, variant: Variant, results: Results) -> tuple[Stage, ...]:
        """The stages, scaled to the baseline's tokens where the budget is one of tokens.

        Raises `ConfigurationError` when the cells that tell the tokens have no result.
        """
        if cell.budget == "updates":
            return variant.stages
        plan = self.plan
        known = {
            (other.arm_name, other.budget): results.find(other)
            for other in plan.cells()
            if other.data.data_id == cell.data.data_id
        }
        own, baseline = known.get((cell.arm_name, "updates")), known.get((plan.baseline, "updates"))
        if own is None or baseline is None:
            raise ConfigurationError(
                'a budget of tokens is measured by the same arm at equal updates: name "updates" first in `budgets`'
            )
        share = baseline.tokens / own.tokens
        return tuple(
            stage.model_copy(update={"updates": max(1, round(stage.updates * share))}) for stage in variant.stages
        )


async def _with_wrong(lab: Laboratory, requests: list[BranchRequest], wrong: int, seed: int) -> list[BranchRequest]:
    """The demonstrations, `wrong` of them with the actions of another one's task, and what came back then."""
    if not wrong:
        return requests
    rng = random.Random(f"wrong {seed}")
    places = rng.sample(range(len(requests)), wrong)
    changed = list(requests)
    for place in places:
        other = rng.choice([each for number, each in enumerate(requests) if number != place])
        actions = [step.action for step in other.steps]
        changed[place] = await lab.recorded(requests[place].task, actions)
    return changed


def _in_domain(settings: Settings, chosen: StudyDomain) -> Settings:
    environments = {**settings.branching.environments, **chosen.environments}
    branching = settings.branching.model_copy(update={"environments": environments})
    return settings.model_copy(update={"domain": chosen.domain, "branching": branching})


def _success(rollouts: Sequence[Rollout]) -> float:
    return mean(rollout.success for rollout in rollouts)


def _result(
    cell: Cell, rollouts: Sequence[Rollout], variant: int, updates: Sequence[Progress], seconds: float
) -> CellResult:
    losses: dict[str, list[float]] = defaultdict(list)
    for update in updates:
        losses[update.objective].append(round(update.loss, 4))
    steps = sum(rollout.steps for rollout in rollouts)
    return CellResult(
        cell=cell,
        solved={rollout.task_id: rollout.success for rollout in rollouts},
        mean_score=mean(rollout.score for rollout in rollouts),
        invalid_actions=sum(rollout.invalid_actions for rollout in rollouts) / max(1, steps),
        variant=variant,
        updates=len(updates),
        tokens=sum(update.tokens for update in updates),
        losses={objective: tuple(values) for objective, values in losses.items()},
        seconds=round(seconds, 1),
    )
