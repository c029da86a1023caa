"""How many failed episodes of an agent can be turned into successes, by selector and by the length of a continuation.

    python -m examples.compare_recoveries --adapter .ratchet/demo/adapters/DIGEST

The agent (the base model, with that adapter if one is given) plays tasks of the train split greedily until enough of
them have failed. Each of those is resumed with every selector and length, always within the same budget of sandbox
steps: that, by the length, is how many continuations an episode gets. Tells how it goes on stderr and prints the table,
or with --json one object, on stdout.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.table import Table

from daemon.console import Narrator
from daemon.study.laboratory import Laboratory, laboratory
from evaluation.statistics import Interval, wilson_interval
from examples.presentation import present, settings
from ratchet_client.events import Task
from ratchet_client.settings import FrozenModel
from streams.branch_events import BranchRequest, RecoveryResult
from streams.branching.recovery import recover
from streams.branching.selectors import SELECTORS
from streams.branching.settings import BranchingSettings, RecoverySettings
from streams.policy.served import ServedPolicy

_AT_ONCE = 32


class Run(FrozenModel):
    """One selector and length over all failed episodes. `sandbox_steps` are those really taken, replays not counted."""

    selector: str
    steps: int
    episodes: int
    attempts: int
    sandbox_steps: int
    recovered: int
    interval: Interval

    @property
    def per_hundred(self) -> float:
        return 100 * self.recovered / self.episodes


class Report(FrozenModel):
    """`played` tasks gave the failed episodes; `budget` is in sandbox steps an episode."""

    played: int
    failed: int
    budget: int
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Bench:
    """What all runs share."""

    options: argparse.Namespace
    laboratory: Laboratory
    agent: str

    async def run(self) -> Report:
        failed, played = await self._failures(self.laboratory.train)
        runs = []
        for steps in self.options.steps:
            for selector in self.options.selectors:
                runs.append(await self._recover(failed, selector, steps))
        return Report(played=played, failed=len(failed), budget=self.options.budget, runs=tuple(runs))

    async def _failures(self, tasks: Sequence[Task]) -> tuple[list[BranchRequest], int]:
        """Failed episodes, as production would have recorded them, and how many were played for them."""
        failed: list[BranchRequest] = []
        played = 0
        while len(failed) < self.options.failures and played < len(tasks):
            chunk = tasks[played : played + _AT_ONCE]
            rollouts = await self.laboratory.played(self.agent, chunk)
            played += len(chunk)
            for task, rollout in zip(chunk, rollouts, strict=True):
                if not rollout.success:
                    failed.append(await self.laboratory.recorded(task, rollout.actions, "failed"))
            self.laboratory.narrator.advance(
                "failed episodes", min(len(failed), self.options.failures), self.options.failures
            )
        return failed[: self.options.failures], played

    async def _recover(self, failed: Sequence[BranchRequest], name: str, steps: int) -> Run:
        recovery = RecoverySettings(attempts=max(1, self.options.budget // steps), steps=steps)
        settings = BranchingSettings(recovery=recovery, seed=self.options.seed)
        policy, selector = ServedPolicy(self.laboratory.policy, self.agent, patience_s=60), SELECTORS[name]()
        results: list[RecoveryResult] = []
        for start in range(0, len(failed), settings.episodes):
            batch = failed[start : start + settings.episodes]
            results += await asyncio.gather(
                *(recover(request, self.laboratory.pool, policy, selector, settings) for request in batch)
            )
            self.laboratory.narrator.advance(f"{name}, {steps} steps", len(results), len(failed))
        recovered = sum(bool(result.recoveries) for result in results)
        return Run(
            selector=name,
            steps=steps,
            episodes=len(failed),
            attempts=sum(result.attempts for result in results),
            sandbox_steps=sum(result.sandbox_steps for result in results),
            recovered=recovered,
            interval=wilson_interval(recovered, len(failed)),
        )


async def compare(options: argparse.Namespace, narrator: Narrator) -> Report:
    """Play, fail, and go on."""
    async with laboratory(narrator, settings()) as lab:
        if options.adapter is None:
            return await Bench(options, lab, "base").run()
        await lab.policy.load_adapter("agent", str(options.adapter.resolve()))
        return await Bench(options, lab, "agent").run()


def table(report: Report) -> Table:
    rows = Table("steps", "selector", "attempts", "sandbox steps", "recovered of 100", "95% interval")
    for run in report.runs:
        rows.add_row(
            *(str(run.steps), run.selector, str(run.attempts), str(run.sandbox_steps)),
            *(f"{run.per_hundred:.1f}", f"{100 * run.interval.low:.0f} to {100 * run.interval.high:.0f}"),
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, help="the agent's adapter: a folder; without it the base model plays")
    parser.add_argument("--failures", type=int, default=100, help="failed episodes to resume (%(default)s)")
    parser.add_argument("--budget", type=int, default=16, help="sandbox steps for one of them (%(default)s)")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 16], help="lengths of a continuation")
    parser.add_argument("--selectors", nargs="+", choices=sorted(SELECTORS), default=sorted(SELECTORS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    return present("compare_recoveries", partial(compare, options), table, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
