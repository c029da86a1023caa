"""Whatever a study makes on the way: data, practice, adapters and rollouts.

Each is kept in the study's folder under a hash of all that it was made of, so that arms that begin alike share it.
"""

import random
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

from pydantic import TypeAdapter

from daemon.config import Settings
from daemon.console import Narrator
from daemon.study.episodes import attempts, demonstrate, play_round
from daemon.study.laboratory import Laboratory, ModelServer, laboratory_with, model_server
from daemon.study.plan import Data, Practise, StudyDomain
from evaluation.frontier import choose
from evaluation.reflecting import reflect
from learners.reflections.records import ReflectionFile
from learners.settings import LearnerSettings, Progress, TrainingJob
from learners.snapshots import read_trajectories, write_snapshot
from learners.training import run_training
from learners.trajectories import Trajectory
from ratchet_client.errors import ConfigurationError
from ratchet_client.events import Task
from ratchet_client.ids import content_id, uuid7
from ratchet_client.settings import FrozenModel
from streams.errors import TrainingError
from streams.runtime.files import move_into_place, new_folder, write_atomically

# The adapter that is none: the base model itself.
BASE = ""
# The name under which the server has the base model.
_SERVED_BASE = "base"
_UPDATES = "updates.json"

_Make: TypeAlias = Callable[[], Awaitable[list[Trajectory]]]


class PlayedTask(FrozenModel):
    """What became of a held-out task."""

    task_id: str
    success: bool
    score: float
    steps: int
    invalid_actions: int


_UPDATES_TYPE = TypeAdapter(tuple[Progress, ...])
_PLAYED_TYPE = TypeAdapter(tuple[PlayedTask, ...])


class Workshop:
    """The folder of a study, with one server and the sandboxes of each domain that was asked for."""

    def __init__(self, folder: Path, settings: Settings, narrator: Narrator, server: ModelServer) -> None:
        self._folder = folder
        self._settings = settings
        self._narrator = narrator
        self._server = server
        self._laboratories: dict[str, Laboratory] = {}
        self.opened = AsyncExitStack()

    async def laboratory(self, domain: StudyDomain) -> Laboratory:
        """The sandboxes and tasks of a domain, which stay open."""
        key = _identity(domain)
        if key not in self._laboratories:
            given = _in_domain(self._settings, domain)
            opening = laboratory_with(self._server, self._narrator, given)
            self._laboratories[key] = await self.opened.enter_async_context(opening)
        return self._laboratories[key]

    async def split(self, data: Data) -> tuple[list[Task], list[Task]]:
        """The train tasks that are demonstrated, and the others, in the order of the data's seed.

        Raises `ConfigurationError` where there are fewer than demonstrations.
        """
        tasks = (await self.laboratory(data.domain)).train
        drawn = random.Random(data.seed).sample(tasks, len(tasks))
        if len(drawn) < data.demonstrations:
            raise ConfigurationError(
                f"{data.name} has {len(drawn)} train tasks, fewer than {data.demonstrations} demonstrations: "
                "ask for fewer"
            )
        return drawn[: data.demonstrations], drawn[data.demonstrations :]

    async def demonstrated(self, data: Data) -> str:
        """The id of the set of the data's demonstrations and branches."""
        lab, (chosen, _) = await self.laboratory(data.domain), await self.split(data)

        async def make() -> list[Trajectory]:
            return await demonstrate(lab, data, chosen)

        return await self._kept(content_id("demonstrated", self._settings.model, data.data_id), make)

    async def practised(
        self, data: Data, adapter: str, practise: Practise, earlier: Sequence[str], reserved: Sequence[Task]
    ) -> str:
        """The id of the set of episodes that `adapter` played for practice, after the rounds `earlier`.

        The tasks `reserved` are not practised.
        """
        lab, kept = await self.laboratory(data.domain), {task.task_id for task in reserved}
        tasks = [task for task in lab.train if task.task_id not in kept]

        async def make() -> list[Trajectory]:
            known = attempts([self.trajectories(name) for name in earlier])
            seed = data.seed * 1000 + len(earlier)
            chosen = choose(tasks, known, practise.tasks, practise.explore, practise.revisit, seed)
            async with self._served(adapter) as model:
                return await play_round(lab, model, practise, chosen)

        about = (_identity(data.domain), str(data.seed), practise.model_dump_json(), *sorted(kept), *earlier)
        return await self._kept(content_id("practised", self._settings.model, adapter, *about), make)

    async def joined(self, sets: Sequence[str], older: Sequence[str], replay: float, seed: int) -> str:
        """The id of all trajectories of `sets`, with as many successes of `older` that they are the share `replay`."""
        if len(sets) == 1 and not (older and replay):
            return sets[0]

        async def make() -> list[Trajectory]:
            new = [one for name in sets for one in self.trajectories(name)]
            old = [one for name in older for one in self.trajectories(name) if one.success]
            count = min(len(old), round(replay / (1 - replay) * len(new)))
            return new + random.Random(f"replay {seed}").sample(old, count)

        replayed = (str(replay), str(seed), *older) if older and replay else ()
        return await self._kept(content_id("joined", *sets, "replayed", *replayed), make)

    async def _kept(self, name: str, make: _Make) -> str:
        """Make the trajectories of a set and keep them as a snapshot, unless they are there."""
        if not any((self._folder / "data" / name).glob("*/manifest.json")):
            trajectories = await make()
            with new_folder(self._folder / "data") as scratch:
                write_snapshot(trajectories, self._server.settings.holdout, scratch / name, 0, {})
                move_into_place(scratch / name, self._folder / "data" / name)
        return name

    def snapshot(self, name: str) -> Path:
        """The folder of a set. Raises `TrainingError` where there is none."""
        found = next((self._folder / "data" / name).glob("*/manifest.json"), None)
        if found is None:
            raise TrainingError(f"{self._folder / 'data' / name} holds no snapshot: remove it to have it made again")
        return found.parent

    def trajectories(self, name: str) -> list[Trajectory]:
        """The trajectories of a set."""
        return read_trajectories(self.snapshot(name))

    async def reflected(
        self, data: str, domain: StudyDomain, learner: LearnerSettings, seed: int
    ) -> ReflectionFile | None:
        """The rationales of a set's states, which are written unless they are there; None where no stage learns any."""
        if not any("reflection" in stage.objectives for stage in learner.stages):
            return None
        harness = (await (await self.laboratory(domain)).pool.describe()).harness
        server = self._server
        return await reflect(self.snapshot(data), learner, server.base, harness, seed, server.policy, _SERVED_BASE)

    async def trained(
        self, data: str, parent: str, learner: LearnerSettings, seed: int, reflections: ReflectionFile | None = None
    ) -> tuple[str, tuple[Progress, ...]]:
        """The id of the adapter that is trained on a set, on from `parent`, and how each update went."""
        settings = learner.model_dump_json(exclude={"threads"})
        about = () if reflections is None else (reflections.sha256,)
        name = content_id("trained", self._settings.model, data, parent, settings, str(seed), *about)
        folder = self._folder / "adapters" / name
        if (folder / _UPDATES).exists():
            return name, _UPDATES_TYPE.validate_json((folder / _UPDATES).read_bytes())
        # What a training that was ended left behind does not say how its first updates went.
        shutil.rmtree(folder, ignore_errors=True)
        updates: list[Progress] = []

        def note(progress: Progress) -> None:
            updates.append(progress)
            told = f"{progress.objective}, loss {progress.loss:.3f}"
            self._narrator.advance("training", progress.update, progress.updates, told)

        job = TrainingJob(
            base=self._server.base,
            snapshot=self.snapshot(data).resolve(),
            output=folder.resolve(),
            parent=self._adapter(parent),
            settings=learner,
            seed=seed,
            reflections=None if reflections is None else reflections.path.resolve(),
            reflections_sha256="" if reflections is None else reflections.sha256,
        )
        await run_training(job, note)
        write_atomically(folder / _UPDATES, _UPDATES_TYPE.dump_json(tuple(updates)))
        return name, tuple(updates)

    async def played(self, adapter: str, domain: StudyDomain, tasks: Sequence[Task]) -> tuple[PlayedTask, ...]:
        """What the adapter made of the tasks, greedily."""
        lab = await self.laboratory(domain)
        sampling = lab.settings.gate.rollouts.sampling.model_dump_json()
        ids = (task.task_id for task in tasks)
        name = content_id("played", self._settings.model, adapter, _identity(domain), sampling, *ids)
        path = self._folder / "rollouts" / f"{name}.json"
        if path.exists():
            return _PLAYED_TYPE.validate_json(path.read_bytes())
        async with self._served(adapter) as model:
            rollouts = await lab.played(model, tasks, "playing")
        played = tuple(
            PlayedTask(
                task_id=rollout.task_id,
                success=rollout.success,
                score=rollout.score,
                steps=rollout.steps,
                invalid_actions=rollout.invalid_actions,
            )
            for rollout in rollouts
        )
        write_atomically(path, _PLAYED_TYPE.dump_json(played))
        return played

    @asynccontextmanager
    async def _served(self, adapter: str) -> AsyncIterator[str]:
        """The name under which the server has the adapter meanwhile: never the same, as the server demands."""
        path, policy = self._adapter(adapter), self._server.policy
        if path is None:
            yield _SERVED_BASE
            return
        name = f"{adapter[:8]}-{uuid7()}"
        await policy.load_adapter(name, str(path))
        try:
            yield name
        finally:
            await policy.unload_adapter(name)

    def _adapter(self, adapter: str) -> Path | None:
        return None if adapter == BASE else (self._folder / "adapters" / adapter).resolve()


@asynccontextmanager
async def workshop(folder: Path, settings: Settings, narrator: Narrator) -> AsyncIterator[Workshop]:
    """Start the server, and end it with all sandboxes."""
    async with model_server(settings) as server:
        opened = Workshop(folder, settings, narrator, server)
        async with opened.opened:
            yield opened


def _identity(domain: StudyDomain) -> str:
    return content_id(domain.model_dump_json(exclude={"play"}, exclude_defaults=True))


def _in_domain(settings: Settings, chosen: StudyDomain) -> Settings:
    environments = {**settings.branching.environments, **chosen.environments}
    branching = settings.branching.model_copy(update={"environments": environments})
    return settings.model_copy(update={"domain": chosen.domain, "branching": branching})
