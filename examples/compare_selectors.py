"""Which states are worth a branch: selectors, and alternatives in rounds, at the same sandbox budget.

    python -m examples.compare_selectors --seeds 2

Each seed draws its own demonstrations from the train split. Every arm branches them with the same number of branches an
episode, the proposals coming from the environment's list alone, and trains a world model on them by the same number of
updates. What counts is its loss on branches of held-out tasks, of every state alike, which no arm chose. Tells how it
goes on stderr and prints the table, or with --json one object, on stdout.
"""

import argparse
import asyncio
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

from pydantic import BaseModel, ConfigDict
from rich.table import Table

from daemon.console import Narrator
from examples.laboratory import Laboratory, laboratory, present
from learners.settings import Stage
from learners.snapshots import write_snapshot
from learners.trajectories import Branch, Trajectory
from streams.branching import branch
from streams.budget import Budget
from streams.events import BranchRequest, BranchResult, Task
from streams.selectors import SELECTORS
from streams.served_policy import ServedPolicy
from streams.settings import BranchingSettings

_EVERYTHING = BranchingSettings(alternatives=4, samples=0)


class Run(BaseModel):
    """One arm of one seed. `loss` is in nats per token over `judged` held-out branches; `before` the base model's."""

    model_config = ConfigDict(frozen=True)

    arm: str
    seed: int
    branches: int
    trained_tokens: int
    judged: int
    before: float
    loss: float


class Report(BaseModel):
    """All runs; `budget` is in branches an episode."""

    model_config = ConfigDict(frozen=True)

    demonstrations: int
    budget: int
    updates: int
    runs: tuple[Run, ...]


def arms(budget: int) -> dict[str, BranchingSettings]:
    """The settings of each arm; all may spend the same."""
    fixed = {
        name: BranchingSettings.model_validate(
            {"selector": name, "alternatives": 6, "branches_per_episode": budget, "samples": 0}
        )
        for name in sorted(SELECTORS)
    }
    rounds = fixed["uniform"].model_copy(update={"adaptive": True})
    return {**fixed, "in rounds": rounds, "in rounds, surprising": rounds.model_copy(update={"boring": 0.5})}


@dataclass(frozen=True, slots=True)
class Bench:
    """What all runs share."""

    options: argparse.Namespace
    laboratory: Laboratory

    async def run(self) -> Report:
        lab, options = self.laboratory, self.options
        held_out = [await self._demonstrated(task) for task in lab.held_out[: options.tasks]]
        judges = await self._branch(held_out, _EVERYTHING)
        before = await self._loss("base", held_out, judges)
        runs = []
        for seed in range(options.seeds):
            chosen = random.Random(seed).sample(lab.train, options.demonstrations)
            requests = [await self._demonstrated(task) for task in chosen]
            for arm, settings in arms(options.budget).items():
                results = await self._branch(requests, settings.model_copy(update={"seed": seed}))
                name = f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}"
                snapshot = self._snapshot(name, requests, results)
                tokens = await lab.teach(
                    name, snapshot, (Stage(objective="world_model", updates=options.updates),), seed
                )
                loss = await self._loss(name, held_out, judges)
                await lab.policy.unload_adapter(name)
                branches = sum(len(result.alternatives) for result in results)
                judged = sum(len(result.alternatives) for result in judges)
                runs.append(
                    Run(
                        arm=arm,
                        seed=seed,
                        branches=branches,
                        trained_tokens=tokens,
                        judged=judged,
                        before=round(before, 4),
                        loss=round(loss, 4),
                    )
                )
                lab.narrator.say(f"{arm}, seed {seed}: {branches} branches, loss {loss:.3f} after {before:.3f}")
        return Report(
            demonstrations=options.demonstrations, budget=options.budget, updates=options.updates, runs=tuple(runs)
        )

    async def _demonstrated(self, task: Task) -> BranchRequest:
        return await self.laboratory.recorded(task, await self.laboratory.pool.demonstration(task))

    async def _branch(self, requests: Sequence[BranchRequest], settings: BranchingSettings) -> list[BranchResult]:
        lab = self.laboratory
        policy, selector = ServedPolicy(lab.policy, "base", patience_s=60), SELECTORS[settings.selector]()
        results: list[BranchResult] = []
        for start in range(0, len(requests), settings.episodes):
            batch = requests[start : start + settings.episodes]
            worked = await asyncio.gather(
                *(branch(request, lab.pool, policy, selector, settings, Budget(None)) for request in batch)
            )
            results += [result for each in worked for result in each]
        return results

    def _snapshot(self, name: str, requests: Sequence[BranchRequest], results: Sequence[BranchResult]) -> Path:
        lab = self.laboratory
        trajectories = [
            Trajectory(
                episode_id=request.episode_id,
                task_id=request.task.task_id,
                opening=request.opening,
                steps=request.steps,
                branches=tuple(
                    Branch(result.step, each.action, each.observation, each.source, result.fidelity)
                    for result in results
                    if result.request_id == request.event_id
                    for each in result.alternatives
                ),
            )
            for request in requests
        ]
        return write_snapshot(trajectories, lab.settings.holdout, lab.home / "snapshots" / name, 0, {}).folder

    async def _loss(self, model: str, requests: Sequence[BranchRequest], judges: Sequence[BranchResult]) -> float:
        """The mean over held-out branches of the model's loss on what they led to."""
        lab = self.laboratory
        harness = (await lab.pool.describe()).harness
        by_id = {request.event_id: request for request in requests}
        losses: list[float] = []
        for number, result in enumerate(judges, start=1):
            before = by_id[result.request_id].state(result.step)
            found = await asyncio.gather(
                *(
                    lab.policy.surprise(model, harness.extend(before, each.action, each.observation))
                    for each in result.alternatives
                )
            )
            losses += [surprise.nats for surprise in found]
            lab.narrator.advance(f"{model}: held-out states judged", number, len(judges))
        return fmean(losses)


async def compare(options: argparse.Namespace, narrator: Narrator) -> Report:
    """Branch, train and judge every arm with every seed."""
    async with laboratory(narrator) as lab:
        return await Bench(options, lab).run()


def table(report: Report) -> Table:
    rows = Table("arm", "seed", "branches", "tokens", "held-out loss", "base model's")
    for run in report.runs:
        rows.add_row(
            *(
                run.arm,
                str(run.seed),
                str(run.branches),
                str(run.trained_tokens),
                f"{run.loss:.3f}",
                f"{run.before:.3f}",
            )
        )
    rows.caption = f"{report.demonstrations} demonstrations, {report.budget} branches each, {report.updates} updates"
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2, help="how many seeds (%(default)s)")
    parser.add_argument("--demonstrations", type=int, default=40, help="per seed (%(default)s)")
    parser.add_argument("--budget", type=int, default=8, help="branches of one demonstration (%(default)s)")
    parser.add_argument("--updates", type=int, default=30, help="of each arm, two trajectories each (%(default)s)")
    parser.add_argument("--tasks", type=int, default=20, help="held-out tasks whose branches judge (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    return present("compare_selectors", partial(compare, options), table, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
