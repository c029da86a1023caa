"""Which states are worth a branch: selectors, and alternatives in rounds, at the same sandbox budget.

    python -m examples.compare_selectors --seeds 0 1 2

Each seed draws its own demonstrations from the train split. Every arm branches them with the same number of branches an
episode, the proposals coming from the environment's list alone, and trains a world model on them by the same number of
updates. What counts is its loss on branches of held-out tasks, of every state alike, which no arm chose. With --play N
each arm is also taught to act, by the same demonstrations, and plays N held-out tasks. Tells how it goes on stderr and
prints the table, or with --json one object, on stdout.
"""

import argparse
import asyncio
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import TypeAlias

from rich.table import Table

from daemon.console import Narrator
from daemon.study.laboratory import Laboratory, laboratory
from examples.presentation import present, settings
from learners.settings import Stage
from learners.trajectories import Trajectory
from ratchet_client.settings import FrozenModel
from streams.branch_events import BranchRequest
from streams.branching.selectors import SELECTORS
from streams.branching.settings import BranchingSettings

_EVERYTHING = BranchingSettings(alternatives=4, samples=0)


_Judge: TypeAlias = tuple[BranchRequest, Trajectory]


class Run(FrozenModel):
    """One arm of one seed. `loss` is in nats per token; `success` is of those played, None when none are."""

    arm: str
    seed: int
    branches: int
    trained_tokens: int
    loss: float
    success: float | None


class Report(FrozenModel):
    """All runs; `budget` is in branches an episode, `before` the base model's loss."""

    demonstrations: int
    budget: int
    updates: int
    before: float
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
    return {**fixed, "in_rounds": rounds}


@dataclass(frozen=True, slots=True)
class Bench:
    """What all runs share."""

    options: argparse.Namespace
    laboratory: Laboratory

    async def run(self) -> Report:
        lab, options = self.laboratory, self.options
        judged = [await lab.demonstrated(task) for task in lab.held_out[: options.tasks]]
        judges = list(zip(judged, await lab.branched(judged, _EVERYTHING), strict=True))
        before = await self._loss("base", judges)
        runs = []
        for seed in options.seeds:
            chosen = random.Random(seed).sample(lab.train, options.demonstrations)
            requests = [await lab.demonstrated(task) for task in chosen]
            for arm in options.arms:
                settings = arms(options.budget)[arm].model_copy(update={"seed": seed})
                trajectories = await lab.branched(requests, settings)
                run = await self._one(arm, seed, trajectories, judges)
                runs.append(run)
                won = "" if run.success is None else f", success {run.success:.3f}"
                lab.narrator.say(f"{arm}, seed {seed}: {run.branches} branches, loss {run.loss:.3f}{won}")
        return Report(
            demonstrations=options.demonstrations,
            budget=options.budget,
            updates=options.updates,
            before=round(before, 4),
            runs=tuple(runs),
        )

    async def _one(self, arm: str, seed: int, trajectories: Sequence[Trajectory], judges: Sequence[_Judge]) -> Run:
        lab, options = self.laboratory, self.options
        name = f"{arm}-{seed}"
        snapshot = lab.snapshot(name, trajectories)
        world_model = Stage(objective="world_model", updates=options.updates)
        updates = await lab.teach(name, snapshot, (world_model,), seed)
        loss = await self._loss(name, judges)
        await lab.policy.unload_adapter(name)
        success = None
        if options.play:
            imitation = Stage(objective="imitation", updates=options.imitation)
            name = f"{name}-agent"
            await lab.teach(name, snapshot, (world_model, imitation), seed)
            rollouts = await lab.played(name, lab.held_out[: options.play])
            success = round(sum(rollout.success for rollout in rollouts) / len(rollouts), 4)
            await lab.policy.unload_adapter(name)
        return Run(
            arm=arm,
            seed=seed,
            branches=sum(len(trajectory.branches) for trajectory in trajectories),
            trained_tokens=sum(update.tokens for update in updates),
            loss=round(loss, 4),
            success=success,
        )

    async def _loss(self, model: str, judges: Sequence[_Judge]) -> float:
        """The mean over held-out branches of the model's loss on what they led to, in nats per token."""
        lab = self.laboratory
        harness = (await lab.pool.describe()).harness
        losses: list[float] = []
        for number, (request, trajectory) in enumerate(judges, start=1):
            found = await asyncio.gather(
                *(
                    lab.policy.negative_log_likelihood(
                        model, harness.extend(request.state(each.step), each.action, each.observation)
                    )
                    for each in trajectory.branches
                )
            )
            losses += [negative_log_likelihood.nats for negative_log_likelihood in found]
            lab.narrator.advance(f"{model}: held-out tasks judged", number, len(judges))
        return fmean(losses)


async def compare(options: argparse.Namespace, narrator: Narrator) -> Report:
    """Branch, train and judge every arm with every seed."""
    async with laboratory(narrator, settings()) as lab:
        return await Bench(options, lab).run()


def table(report: Report) -> Table:
    rows = Table("arm", "seed", "branches", "tokens", "held-out loss", "success")
    for run in report.runs:
        success = "" if run.success is None else f"{run.success:.3f}"
        rows.add_row(run.arm, *map(str, (run.seed, run.branches, run.trained_tokens)), f"{run.loss:.3f}", success)
    rows.caption = (
        f"{report.demonstrations} demonstrations, {report.budget} branches each, {report.updates} updates. "
        f"The base model's loss is {report.before:.3f}."
    )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="each draws its own (%(default)s)")
    parser.add_argument("--demonstrations", type=int, default=40, help="per seed (%(default)s)")
    parser.add_argument("--arms", nargs="+", choices=list(arms(1)), default=list(arms(1)), help="all by default")
    parser.add_argument("--budget", type=int, default=8, help="branches of one demonstration (%(default)s)")
    parser.add_argument("--updates", type=int, default=30, help="of each arm, two trajectories each (%(default)s)")
    parser.add_argument("--tasks", type=int, default=20, help="held-out tasks whose branches judge (%(default)s)")
    parser.add_argument("--play", type=int, default=0, help="held-out tasks that each arm plays (%(default)s)")
    parser.add_argument("--imitation", type=int, default=60, help="updates of imitation before that (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    return present("compare_selectors", partial(compare, options), table, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
