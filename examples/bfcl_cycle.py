"""One whole cycle of the loop on an environment of tool calls, in a budget for two cores, with any base model.

    python -m examples.bfcl_cycle --base FOLDER --tasks 4 --updates 8 --gate-tasks 4

Demonstrations of the Berkeley Function Calling Leaderboard's multi-turn tasks are recorded as production would record
them, their states branched with what the base model proposes and with mutations of the demonstrated calls, a snapshot
is written and an adapter trained on it. Then base and adapter play held-out tasks, and the gate judges. The tasks are
those with the fewest words to read. Tells how it goes on stderr and prints one JSON object on stdout.

The budget is too small for a significant verdict; it shows that every part works with the model, and how fast.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from daemon.config import DomainSettings, Settings
from daemon.console import Narrator
from daemon.registry.schemas import BASE
from daemon.study.laboratory import Laboratory, laboratory
from evaluation.gates.gate import Competitor, Evidence, TaskLists
from evaluation.gates.improvement import Improvement
from evaluation.report import GateReport, Side
from evaluation.rollouts import Pair, Rollout
from evaluation.settings import GateSettings
from evaluation.trial import hold_trial
from examples.presentation import present
from learners.settings import Progress, Stage
from learners.trajectories import Trajectory
from ratchet_client.events import Task
from ratchet_client.messages import text_of
from ratchet_client.settings import FrozenModel
from streams.branching.settings import BranchingSettings
from streams.errors import GateError


class Training(FrozenModel):
    """The updates of one objective. Losses are in nats per counted token."""

    objective: str
    updates: int
    tokens: int
    first_loss: float
    last_loss: float

    @classmethod
    def of(cls, updates: Sequence[Progress]) -> tuple["Training", ...]:
        """One for each objective, in the order of training."""
        by_objective: dict[str, list[Progress]] = {}
        for update in updates:
            by_objective.setdefault(update.objective, []).append(update)
        return tuple(
            cls(
                objective=objective,
                updates=len(made),
                tokens=sum(update.tokens for update in made),
                first_loss=round(made[0].loss, 4),
                last_loss=round(made[-1].loss, 4),
            )
            for objective, made in by_objective.items()
        )


class Player(FrozenModel):
    """One side of the gate. `actions` counts what it did: `calls` some tools, or `text` to the user."""

    side: Side
    actions: dict[str, int]

    @classmethod
    def of(cls, side: Side, rollouts: Sequence[Rollout]) -> "Player":
        taken = Counter("calls" if action.calls else "text" for each in rollouts for action in each.actions)
        return cls(side=side, actions=dict(sorted(taken.items())))


class Cycle(FrozenModel):
    """The figures of a cycle. `branches` counts alternatives by source, `seconds` is wall time by phase."""

    base: str
    game: str
    demonstrations: int
    steps: int
    states: int
    branches: dict[str, int]
    training: tuple[Training, ...]
    verdict: str
    reason: str
    figures: dict[str, bool | int | float | str | None]
    champion: Player
    candidate: Player
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class Bench:
    """The options, the laboratory, and a stopwatch."""

    options: argparse.Namespace
    laboratory: Laboratory
    seconds: dict[str, float] = field(default_factory=dict)

    async def run(self) -> Cycle:
        options, lab = self.options, self.laboratory
        with self._timed("demonstrations"):
            requests = [await lab.demonstrated(task) for task in await self._shortest(lab.train, options.tasks)]
        with self._timed("branching"):
            settings = BranchingSettings(
                alternatives=options.alternatives,
                samples=options.samples,
                branches_per_episode=options.branches,
                policy_patience_s=5,
                seed=options.seed,
            )
            trajectories = await lab.branched(requests, settings)
        with self._timed("training"):
            updates = await self._teach(trajectories)
        with self._timed("gate"):
            report, pairs = await self._judge()
        played = report.held_out
        if played is None:
            raise GateError(report.reason)
        alternatives = [branch for trajectory in trajectories for branch in trajectory.branches]
        return Cycle(
            base=lab.base.name,
            game=options.game,
            demonstrations=len(requests),
            steps=sum(len(request.steps) for request in requests),
            states=len({(each.episode_id, branch.step) for each in trajectories for branch in each.branches}),
            branches=dict(Counter(branch.source for branch in alternatives)),
            training=Training.of(updates),
            verdict=report.verdict.value,
            reason=report.reason,
            figures=report.gates[0].figures,
            champion=Player.of(played.champion, [pair.champion for pair in pairs]),
            candidate=Player.of(played.candidate, [pair.candidate for pair in pairs]),
            seconds=self.seconds,
        )

    async def _shortest(self, tasks: Sequence[Task], most: int) -> list[Task]:
        """The tasks that begin with the fewest characters, tools included: a small machine reads every one of them."""
        async with self.laboratory.pool.session() as session:
            firsts = [(task, await session.reset(task)) for task in tasks]
        sizes = {task.task_id: len(text_of(first.messages)) + len(json.dumps(first.tools)) for task, first in firsts}
        return sorted(tasks, key=lambda task: sizes[task.task_id])[:most]

    async def _teach(self, trajectories: Sequence[Trajectory]) -> list[Progress]:
        """A quarter of the updates for the world model, the rest for imitation, as a cycle has them."""
        first = max(1, self.options.updates // 4)
        stages = (
            Stage(objective="world_model", updates=first, trajectories=1),
            Stage(objective="imitation", updates=max(1, self.options.updates - first), trajectories=1),
        )
        snapshot = self.laboratory.snapshot("cycle", trajectories)
        return await self.laboratory.teach("candidate", snapshot, stages, self.options.seed, self.options.max_length)

    async def _judge(self) -> tuple[GateReport, list[Pair]]:
        lab, options = self.laboratory, self.options
        tasks = await self._shortest(lab.held_out, options.gate_tasks)
        settings = GateSettings(spending="constant", min_tasks=len(tasks), rollouts=lab.settings.gate.rollouts)
        arena = await lab.arena()
        base = Competitor(BASE, BASE)
        evidence = Evidence(
            arena=replace(arena, harness=replace(arena.harness, max_steps=options.steps)),
            candidate=Competitor("candidate", "candidate"),
            champion=base,
            anchor=base,
            base=base,
            tasks=TaskLists(selection=tuple(tasks)),
            alpha=settings.alpha,
            holdout=lab.settings.holdout,
            progress=lambda gate, done, total: lab.narrator.advance(f"{gate}: playing", done, total),
        )
        verdict, reason = await hold_trial(evidence, [Improvement(settings)])
        return GateReport.of(evidence, verdict, reason, settings), evidence.pairs

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[phase] = round(time.monotonic() - began, 1)
        self.laboratory.narrator.say(f"{phase}: {self.seconds[phase]:.0f} s")


async def cycle(options: argparse.Namespace, narrator: Narrator) -> Cycle:
    """Run it."""
    given = Settings.read()
    settings = given.model_copy(
        update={
            "model": options.base or given.model,
            "domain": DomainSettings(environment="bfcl", suite=options.game),
            "engine": given.engine.model_copy(update={"max_length": options.max_length}),
        }
    )
    async with laboratory(narrator, settings) as lab:
        return await Bench(options, lab).run()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=lambda path: str(Path(path).resolve()), help="the base model's folder")
    parser.add_argument("--game", default="multi_turn_base", help="the category of tasks (%(default)s)")
    parser.add_argument("--tasks", type=int, default=4, help="demonstrations (%(default)s)")
    parser.add_argument("--samples", type=int, default=2, help="replies of the base model at a state (%(default)s)")
    parser.add_argument("--alternatives", type=int, default=2, help="tried at a state (%(default)s)")
    parser.add_argument("--branches", type=int, default=12, help="tried in an episode (%(default)s)")
    parser.add_argument("--updates", type=int, default=8, help="of one trajectory each (%(default)s)")
    parser.add_argument("--gate-tasks", type=int, default=4, help="held-out tasks that both sides play (%(default)s)")
    parser.add_argument("--steps", type=int, default=12, help="longest episode in the gate (%(default)s)")
    parser.add_argument("--max-length", type=int, default=4096, help="tokens of a chat and its reply (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    return present("bfcl_cycle", partial(cycle, parser.parse_args()), None)


if __name__ == "__main__":
    sys.exit(main())
