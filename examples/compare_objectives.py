"""Imitation against world model + imitation: the same demonstrations, the same number of updates, several seeds.

    python examples/compare_objectives.py --seeds 3

Each seed draws its own demonstrations from the train split and its own alternatives (random valid actions, executed in
a sandbox), trains both arms from the base model with that seed, and plays the same held-out tasks greedily. Tells how
each run went on stderr and prints the table, or with --json one object, on stdout.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

from daemon.config import Settings
from daemon.console import Narrator, print_json
from daemon.supervisor import inference_service
from evaluation.rollouts import Rollout, play
from evaluation.statistics import mcnemar_exact, wilson_interval
from learners.base_model import resolve_base
from learners.settings import LearnerSettings, LoraSettings, Stage, TrainingJob
from learners.snapshots import write_snapshot
from learners.training import run_training
from learners.trajectories import Branch, Trajectory
from streams.errors import RatchetError
from streams.events import RecordedStep, Task
from streams.holdout import Split
from streams.policy import PolicyClient
from streams.processes import free_port
from streams.sandboxes.harness import ChatHarness
from streams.sandboxes.pool import SandboxPool, SandboxSession


class Run(BaseModel):
    """One trained arm on the held-out tasks."""

    model_config = ConfigDict(frozen=True)

    arm: str
    seed: int
    tasks: int
    success: float
    mean_score: float
    invalid_actions: float
    trained_tokens: int
    seconds: float


class Comparison(BaseModel):
    """All runs. `wins` are tasks that only world model + imitation solved, `losses` those only imitation did."""

    model_config = ConfigDict(frozen=True)

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


async def demonstrate(session: SandboxSession, task: Task, alternatives: int, generator: random.Random) -> Trajectory:
    """The environment's own solution of `task`, with random valid alternatives at each of its states."""
    harness = ChatHarness()
    actions = await session.demonstration(task)
    first, *answers = await session.replay(task, actions)
    branches = []
    for step in range(len(actions)):
        await session.replay(task, actions[:step])
        others = [action for action in await session.valid_actions() if action != actions[step]]
        for action in generator.sample(others, min(alternatives, len(others))):
            answer = (await session.replay(task, (*actions[:step], action)))[-1]
            branches.append(Branch(step, action, answer.text, "valid_actions", "sandbox_replayed"))
    return Trajectory(
        episode_id=task.task_id,
        task_id=task.task_id,
        opening=harness.opening(first.text),
        steps=tuple(
            RecordedStep(action=action, observation=answer.text)
            for action, answer in zip(actions, answers, strict=True)
        ),
        branches=tuple(branches),
    )


async def compare(options: argparse.Namespace, narrator: Narrator) -> Comparison:
    """Train and play every arm with every seed."""
    given = Settings.read()
    base = await asyncio.to_thread(resolve_base, given.model, given.home)
    with tempfile.TemporaryDirectory(prefix="ratchet-compare-") as scratch:
        home = Path(scratch)
        engine = given.engine.model_copy(update={"port": free_port()})
        settings = given.model_copy(update={"home": home, "engine": engine}).settled()
        server = inference_service(settings, base)
        domain = settings.domain
        try:
            await server.start()
            await server.ready()
            async with (
                SandboxPool(domain.environment) as pool,
                PolicyClient(settings.serving.inference_url) as policy,
            ):
                tasks = await pool.tasks(domain.game, domain.fold)
                held_out = [task for task in tasks if settings.holdout.split(task.task_id) is Split.SELECTION]
                bench = _Bench(options, settings, base, home, pool, policy, held_out[: options.tasks], narrator)
                return await bench.run([t for t in tasks if settings.holdout.split(t.task_id) is Split.TRAIN])
        finally:
            await server.stop()


class _Bench:
    """What all runs share."""

    def __init__(
        self,
        options: argparse.Namespace,
        settings: Settings,
        base: Path,
        home: Path,
        pool: SandboxPool,
        policy: PolicyClient,
        held_out: Sequence[Task],
        narrator: Narrator,
    ) -> None:
        self._options = options
        self._settings = settings
        self._base = base
        self._home = home
        self._pool = pool
        self._policy = policy
        self._held_out = held_out
        self._narrator = narrator

    async def run(self, train_tasks: Sequence[Task]) -> Comparison:
        runs: list[Run] = []
        wins = losses = 0
        for seed in range(self._options.seeds):
            generator = random.Random(seed)
            chosen = generator.sample(list(train_tasks), self._options.demonstrations)
            async with self._pool.session() as session:
                trajectories = [
                    await demonstrate(session, task, self._options.alternatives, generator) for task in chosen
                ]
            snapshot = write_snapshot(trajectories, self._settings.holdout, self._home / "snapshots", seed, {})
            solved: list[set[str]] = []
            for arm, stages in arms(self._options.updates, self._options.share).items():
                run, rollouts = await self._one(arm, seed, stages, snapshot.folder)
                runs.append(run)
                solved.append({rollout.task_id for rollout in rollouts if rollout.success})
            wins, losses = wins + len(solved[1] - solved[0]), losses + len(solved[0] - solved[1])
        return Comparison(
            demonstrations=self._options.demonstrations,
            updates=self._options.updates,
            runs=tuple(runs),
            wins=wins,
            losses=losses,
            p_better=mcnemar_exact(wins, losses),
            p_worse=mcnemar_exact(losses, wins),
        )

    async def _one(self, arm: str, seed: int, stages: tuple[Stage, ...], snapshot: Path) -> tuple[Run, list[Rollout]]:
        began, tokens = time.monotonic(), 0
        name = f"{arm.replace(' + ', '-').replace(' ', '-')}-{seed}"
        learner = LearnerSettings(stages=stages, lora=LoraSettings(layers=15), threads=self._settings.learner.threads)
        output = self._home / name
        job = TrainingJob(base=self._base, snapshot=snapshot, output=output, settings=learner, seed=seed)

        def count(update: int, updates: int, loss: float, trained: int) -> None:
            nonlocal tokens
            tokens += trained
            self._narrator.advance(f"{name}: training", update, updates, f"loss {loss:.3f}")

        await run_training(job, lambda p: count(p.update, p.updates, p.loss, p.tokens))
        await self._policy.load_adapter(name, str(output))
        rollouts = await play(
            self._held_out,
            name,
            self._policy,
            self._pool,
            ChatHarness(),
            self._settings.gate.rollouts,
            lambda done, total: self._narrator.advance(f"{name}: playing", done, total),
        )
        await self._policy.unload_adapter(name)
        steps = sum(rollout.steps for rollout in rollouts)
        run = Run(
            arm=arm,
            seed=seed,
            tasks=len(rollouts),
            success=round(sum(rollout.success for rollout in rollouts) / len(rollouts), 4),
            mean_score=round(sum(rollout.score for rollout in rollouts) / len(rollouts), 4),
            invalid_actions=round(sum(rollout.invalid_actions for rollout in rollouts) / steps, 4),
            trained_tokens=tokens,
            seconds=round(time.monotonic() - began, 1),
        )
        self._narrator.say(f"{arm}, seed {seed}: success {run.success:.3f}, mean score {run.mean_score:.3f}")
        return run, rollouts


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
    try:
        with Narrator() as narrator:
            comparison = asyncio.run(compare(options, narrator))
    except RatchetError as error:
        print(f"compare_objectives: {error}", file=sys.stderr)
        return 1
    if options.json:
        print_json(comparison.model_dump_json())
    else:
        Console(width=120).print(table(comparison))
    return 0


if __name__ == "__main__":
    sys.exit(main())
