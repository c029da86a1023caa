"""A server of the base model, sandboxes and tasks: what studies and comparisons teach and play with."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from daemon.config import Settings
from daemon.console import Narrator
from daemon.learning.domain import domain_tasks
from daemon.serving.engine_client import engine_client
from daemon.supervisor import inference_service
from evaluation.arena import Arena
from evaluation.rollouts import Rollout
from learners.base_model import resolve_base
from learners.settings import LearnerSettings, LoraSettings, Progress, Stage, TrainingJob
from learners.snapshots import write_snapshot
from learners.training import run_training
from learners.trajectories import Branch, Trajectory
from ratchet_client.events import Task
from ratchet_client.messages import Message
from streams.branch_events import BranchRequest, BranchResult, RecordedStep
from streams.branching.branch import branch
from streams.branching.selectors import SELECTORS
from streams.branching.settings import BranchingSettings
from streams.errors import GateError
from streams.policy.client import PolicyClient
from streams.policy.served import ServedPolicy
from streams.runtime.processes import free_port
from streams.sandboxes.pool import SandboxPool, sandbox_pool
from streams.trust.holdout import Split


@dataclass(frozen=True, slots=True)
class Laboratory:
    """`train` and `held_out` are the domain's tasks by split, `out_of_domain` those of its other fold.

    `home` is a folder that is gone in the end.
    """

    settings: Settings
    base: Path
    home: Path
    pool: SandboxPool
    policy: PolicyClient
    train: tuple[Task, ...]
    held_out: tuple[Task, ...]
    out_of_domain: tuple[Task, ...]
    narrator: Narrator

    async def teach(
        self, name: str, snapshot: Path, stages: tuple[Stage, ...], seed: int, max_length: int | None = None
    ) -> list[Progress]:
        """Train an adapter of the upper layers and have it served as `name`; returns how each update went."""
        given = self.settings.learner
        learner = LearnerSettings(
            stages=stages,
            lora=LoraSettings(layers=15),
            threads=given.threads,
            max_length=max_length or given.max_length,
        )
        output = self.home / name
        job = TrainingJob(base=self.base, snapshot=snapshot, output=output, settings=learner, seed=seed)
        updates: list[Progress] = []

        def note(progress: Progress) -> None:
            updates.append(progress)
            loss = f"loss {progress.loss:.3f}"
            self.narrator.advance(f"{name}: training", progress.update, progress.updates, loss)

        await run_training(job, note)
        await self.policy.load_adapter(name, str(output))
        return updates

    async def recorded(
        self, task: Task, actions: Sequence[Message], verdict: Literal["trusted", "failed"] = "trusted"
    ) -> BranchRequest:
        """An episode of `actions`, as production would have recorded it."""
        harness = (await self.pool.describe()).harness
        async with self.pool.session() as session:
            first, *answers = await session.replay(task, actions)
        return BranchRequest(
            event_id=task.task_id,
            episode_id=task.task_id,
            task=task,
            verdict=verdict,
            opening=harness.opening(first.messages),
            steps=tuple(
                RecordedStep(action=action, observation=answer.messages, tools=before.tools)
                for action, before, answer in zip(actions, (first, *answers), answers, strict=False)
            ),
        )

    async def demonstrated(self, task: Task) -> BranchRequest:
        """The environment's own solution of `task`."""
        return await self.recorded(task, await self.pool.demonstration(task))

    async def branched(self, requests: Sequence[BranchRequest], settings: BranchingSettings) -> list[Trajectory]:
        """The episodes with what their branches led to, a batch at a time as in the branch role."""
        policy, selector = ServedPolicy(self.policy, "base", patience_s=60), SELECTORS[settings.selector]()
        trajectories: list[Trajectory] = []
        for start in range(0, len(requests), settings.episodes):
            batch = requests[start : start + settings.episodes]
            worked = await asyncio.gather(
                *(branch(request, self.pool, policy, selector, settings) for request in batch)
            )
            trajectories += map(_trajectory, batch, worked)
            self.narrator.advance("branching", len(trajectories), len(requests))
        return trajectories

    def snapshot(self, name: str, trajectories: Sequence[Trajectory]) -> Path:
        """The folder of a snapshot of these alone."""
        return write_snapshot(trajectories, self.settings.holdout, self.home / "snapshots" / name, 0, {}).folder

    async def played(self, model: str, tasks: Sequence[Task], step: str = "") -> list[Rollout]:
        """Greedy rollouts of `model`, one for each task, as a gate plays them; progress is told under the name `step`.

        Raises `GateError` when one lacks.
        """
        told = step or f"{model}: playing"
        played = await (await self.arena()).play(
            tasks, model, lambda done, total: self.narrator.advance(told, done, total)
        )
        for exclusion in played.excluded:
            raise GateError(f"the task {exclusion.task.task_id!r} could not be played: {exclusion.reason}")
        return list(played)

    async def arena(self) -> Arena:
        """The arena in which the gates of these settings are played."""
        harness = (await self.pool.describe()).harness
        return Arena(self.policy, self.pool, harness, self.settings.gate.rollouts)


def _trajectory(request: BranchRequest, results: Sequence[BranchResult]) -> Trajectory:
    return Trajectory(
        episode_id=request.episode_id,
        task_id=request.task.task_id,
        opening=request.opening,
        steps=request.steps,
        branches=tuple(
            Branch(result.step, each.action, each.observation, each.source, result.fidelity, each.score, each.done)
            for result in results
            for each in result.alternatives
        ),
    )


@dataclass(frozen=True, slots=True)
class ModelServer:
    """A running server of the base model `base`. `home` is a folder that is gone in the end."""

    settings: Settings
    base: Path
    home: Path
    policy: PolicyClient


@asynccontextmanager
async def model_server(given: Settings) -> AsyncIterator[ModelServer]:
    """Start the server, and end it."""
    base = await asyncio.to_thread(resolve_base, given.model, given.home)
    with tempfile.TemporaryDirectory(prefix="ratchet-laboratory-") as scratch:
        engine = given.engine.model_copy(update={"port": free_port()})
        settings = given.model_copy(update={"home": Path(scratch), "engine": engine}).settled()
        server = inference_service(settings, base)
        try:
            await server.start()
            await server.ready()
            async with engine_client(settings.serving) as policy:
                yield ModelServer(settings, base, Path(scratch), policy)
        finally:
            await server.stop()


@asynccontextmanager
async def laboratory_with(server: ModelServer, narrator: Narrator, given: Settings) -> AsyncIterator[Laboratory]:
    """Start the sandboxes of the domain that is set, beside a server that runs, and end them."""
    domain = given.domain
    environments = {"environments": given.branching.environments}
    branching = server.settings.branching.model_copy(update=environments)
    settings = server.settings.model_copy(update={"domain": domain, "branching": branching})
    async with sandbox_pool(domain.environment, branching, size=1) as pool:
        found = await domain_tasks(domain, pool)
        train, held_out = (
            tuple(task for task in found.tasks if settings.holdout.split(task.task_id) is split)
            for split in (Split.TRAIN, Split.SELECTION)
        )
        yield Laboratory(
            settings, server.base, server.home, pool, server.policy, train, held_out, found.out_of_domain, narrator
        )


@asynccontextmanager
async def laboratory(narrator: Narrator, given: Settings) -> AsyncIterator[Laboratory]:
    """Start the server, and the sandboxes of the domain that is set, and end them."""
    async with model_server(given) as server, laboratory_with(server, narrator, given) as lab:
        yield lab
