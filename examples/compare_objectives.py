"""Imitation against world model + imitation: the same demonstrations, the same number of updates, several seeds.

    python -m examples.compare_objectives --seeds 3

Each seed draws its own demonstrations from the train split and its own alternatives (random valid actions, executed in
a sandbox), trains both arms from the base model with that seed, and plays the same held-out tasks greedily. Tells how
each run went on stderr and prints the table, or with --json one object, on stdout.
"""

import argparse
import random
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.table import Table

from daemon.console import Narrator
from daemon.study.laboratory import Laboratory, laboratory
from evaluation.rollouts import Rollout
from evaluation.statistics import mcnemar_exact, wilson_interval
from examples.presentation import present, settings
from learners.settings import Stage
from ratchet_client.settings import FrozenModel
from streams.branching.settings import BranchingSettings


class Run(FrozenModel):
    """One trained arm on the held-out tasks."""

    arm: str
    seed: int
    tasks: int
    success: float
    mean_score: float
    invalid_actions: float
    trained_tokens: int
    seconds: float


class Comparison(FrozenModel):
    """All runs. `wins` are tasks that only world model + imitation solved, `losses` those only imitation did."""

    demonstrations: int
    updates: int
    runs: tuple[Run, ...]
    wins: int
    losses: int
    p_better: float
    p_worse: float


def arms(updates: int, share: float) -> dict[str, tuple[Stage, ...]]:
    """Both arms make `updates` updates of two trajectories; `share` of the second's are of the world model."""
    first = round(updates * share)
    return {
        "imitation": (Stage(objective="imitation", updates=updates),),
        "world model + imitation": (
            Stage(objective="world_model", updates=first),
            Stage(objective="imitation", updates=updates - first),
        ),
    }


@dataclass(frozen=True, slots=True)
class Bench:
    """What all runs share."""

    options: argparse.Namespace
    laboratory: Laboratory

    async def run(self) -> Comparison:
        lab = self.laboratory
        runs: list[Run] = []
        wins = losses = 0
        for seed in range(self.options.seeds):
            chosen = random.Random(seed).sample(lab.train, self.options.demonstrations)
            settings = BranchingSettings(alternatives=self.options.alternatives, samples=0, seed=seed)
            trajectories = await lab.branched([await lab.demonstrated(task) for task in chosen], settings)
            snapshot = lab.snapshot(str(seed), trajectories)
            solved: list[set[str]] = []
            for arm, stages in arms(self.options.updates, self.options.share).items():
                run, rollouts = await self._one(arm, seed, stages, snapshot)
                runs.append(run)
                solved.append({rollout.task_id for rollout in rollouts if rollout.success})
            wins, losses = wins + len(solved[1] - solved[0]), losses + len(solved[0] - solved[1])
        return Comparison(
            demonstrations=self.options.demonstrations,
            updates=self.options.updates,
            runs=tuple(runs),
            wins=wins,
            losses=losses,
            p_better=mcnemar_exact(wins, losses),
            p_worse=mcnemar_exact(losses, wins),
        )

    async def _one(self, arm: str, seed: int, stages: tuple[Stage, ...], snapshot: Path) -> tuple[Run, list[Rollout]]:
        began, lab = time.monotonic(), self.laboratory
        name = f"{arm.replace(' + ', '-').replace(' ', '-')}-{seed}"
        updates = await lab.teach(name, snapshot, stages, seed)
        rollouts = await lab.played(name, lab.held_out[: self.options.tasks])
        await lab.policy.unload_adapter(name)
        steps = sum(rollout.steps for rollout in rollouts)
        run = Run(
            arm=arm,
            seed=seed,
            tasks=len(rollouts),
            success=round(sum(rollout.success for rollout in rollouts) / len(rollouts), 4),
            mean_score=round(sum(rollout.score for rollout in rollouts) / len(rollouts), 4),
            invalid_actions=round(sum(rollout.invalid_actions for rollout in rollouts) / steps, 4),
            trained_tokens=sum(update.tokens for update in updates),
            seconds=round(time.monotonic() - began, 1),
        )
        lab.narrator.say(f"{arm}, seed {seed}: success {run.success:.3f}, mean score {run.mean_score:.3f}")
        return run, rollouts


async def compare(options: argparse.Namespace, narrator: Narrator) -> Comparison:
    """Train and play every arm with every seed."""
    async with laboratory(narrator, settings()) as lab:
        return await Bench(options, lab).run()


def table(comparison: Comparison) -> Table:
    rows = Table("arm", "seed", "tasks", "success", "95% interval", "mean score", "invalid", "tokens", "seconds")
    for run in comparison.runs:
        interval = wilson_interval(round(run.success * run.tasks), run.tasks)
        rows.add_row(
            *(run.arm, str(run.seed), str(run.tasks), f"{run.success:.3f}", f"{interval.low:.3f}-{interval.high:.3f}"),
            *(f"{run.mean_score:.3f}", f"{run.invalid_actions:.3f}", str(run.trained_tokens), f"{run.seconds:.0f}"),
        )
    rows.caption = (
        f"{comparison.demonstrations} demonstrations, {comparison.updates} updates of 2 trajectories. Of all pairs, "
        f"only the second arm solves {comparison.wins}, only the first {comparison.losses}: McNemar, one-sided, "
        f"p = {comparison.p_better:.3f} for better, {comparison.p_worse:.3f} for worse."
    )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds (%(default)s)")
    parser.add_argument("--demonstrations", type=int, default=60, help="per seed (%(default)s)")
    parser.add_argument("--updates", type=int, default=120, help="of both arms, two trajectories each (%(default)s)")
    parser.add_argument("--share", type=float, default=0.25, help="of updates that are world model's (%(default)s)")
    parser.add_argument("--alternatives", type=int, default=3, help="per state (%(default)s)")
    parser.add_argument("--tasks", type=int, default=None, help="held-out tasks to play; all by default")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    return present("compare_objectives", partial(compare, options), table, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
