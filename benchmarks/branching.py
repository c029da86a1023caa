"""Verified branches per second through isolated sandboxes, against the same simulator driven by a plain loop.

`python -m benchmarks.branching [--environment NAME …] [--growth] [--json]` branches recorded episodes as the branch
role does, with as many sandboxes as there are cores. The plain loop does the same resets, restores and steps in its own
process, without isolation, messages or verification; its rate times the cores is the limit, and `ratio` ours over it.
What the role saves by walking an episode once, the plain loop saves too. As many plain loops side by side tell how
much of that limit the machine can give.

`--growth` measures how the cost of a branch grows with the depth of its state and with the number of alternatives. The
last `ratio` is the worst of those that replay.
"""

import argparse
import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from statistics import median
from typing import ClassVar, TypeVar

import structlog

from ratchet_client.events import Task
from ratchet_client.messages import Message, Tools
from streams.branch_events import BranchRequest, BranchResult, RecordedStep
from streams.branching.branch import branch
from streams.branching.raw_episode import as_recorded
from streams.branching.restored_episode import restored
from streams.branching.selectors import Uniform
from streams.branching.settings import BranchingSettings
from streams.environments.environment import Environment, Observation, Restore, Snapshots
from streams.environments.registry import load_environment
from streams.environments.tool_definitions import usable
from streams.policy.client import Sampling
from streams.policy.served import Samples
from streams.sandboxes.isolation.settings import Isolation
from streams.sandboxes.pool import SandboxPool
from streams.sandboxes.session import ReferenceTrajectory, ReplaySession

_Result = TypeVar("_Result")

# Of each environment a game, and how many episodes of it: some take seconds to begin one.
CONTESTS = {
    "bfcl": ("multi_turn_base", 40),
    "scienceworld": ("find-living-thing", 4),
    "textworld": ("coin_collector", 4),
    "textworld_express": ("twc", 40),
}
MOST_STEPS = 12
# Tasks that offer one of these are left out: a single call, such as a logarithm to 94,000 digits, takes longer than all
# other branches together.
_SLOW_TOOLS = frozenset({"logarithm"})
_STEP_TIMEOUT_S = 60.0
# Virtual machines compile what they run often, and so both sides run it before they are measured: this often, or only
# once where that takes long.
_WARM_UPS = 8
_LONG_S = 8.0


class Silence:
    """A policy that says nothing: its own rate is measured elsewhere."""

    async def sample(
        self, messages: Sequence[Message], tools: Tools, samplings: Sequence[Sampling], samples: int
    ) -> Samples:
        return Samples()

    async def negative_log_likelihoods(self, messages: Sequence[Message], tools: Tools) -> None:
        return None


class Notebook:
    """Plays an environment and notes what was done to its state, so that a plain loop can do the same."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self.capabilities = environment.capabilities
        self.harness = environment.harness
        self.done: list[Callable[[], object]] = []
        self._snapshots: list[object] = []

    def _do(self, what: Callable[[], _Result]) -> _Result:
        self.done.append(what)
        return what()

    def reset(self, task: Task) -> Observation:
        return self._do(partial(self._environment.reset, task))

    def step(self, action: Message) -> Observation:
        return self._do(partial(self._environment.step, action))

    def snapshot(self) -> int:
        """The number of the snapshot: each time the plain loop takes it, it is another one."""
        assert isinstance(self._environment, Snapshots)
        taking = self._environment.snapshot
        number = len(self._snapshots)
        self._snapshots.append(None)

        def take() -> None:
            self._snapshots[number] = taking()

        self._do(take)
        return number

    def restore(self, number: object) -> None:
        assert isinstance(self._environment, Snapshots)
        assert isinstance(number, int)
        restoring = self._environment.restore
        self._do(lambda: restoring(self._snapshots[number]))

    def fingerprint(self) -> str:
        return self._environment.fingerprint()

    def close(self) -> None:
        self._environment.close()


@dataclass(frozen=True, slots=True)
class Report:
    """Rates are branches per second. `plain_per_s` is one plain loop's times the cores; the other is of that many."""

    environment: str
    isolation: str
    restored_by: str
    episodes: int
    branches: int
    verified_per_s: float
    plain_per_s: float
    side_by_side_per_s: float
    ratios: tuple[float, ...]
    ratio: float


@dataclass(frozen=True, slots=True)
class Growth:
    """Microseconds a branch, by the depth of its state, and by how many are run at a state."""

    by_depth: dict[int, float]
    by_alternatives: dict[int, float]


async def record(pool: SandboxPool) -> list[BranchRequest]:
    """The beginnings of demonstrations of the first tasks, as production would have recorded them."""
    description = await pool.describe()
    game, episodes = CONTESTS[pool.environment]
    requests: list[BranchRequest] = []
    for task in await pool.tasks(game, "train"):
        if len(requests) == episodes:
            break
        async with pool.session() as session:
            actions = (await session.demonstration(task))[:MOST_STEPS]
            first, *answers = await session.replay(task, actions)
        if not _SLOW_TOOLS.isdisjoint(usable(first.tools or ())):
            continue
        steps = [
            RecordedStep(action=action, observation=answer.messages, tools=before.tools)
            for action, before, answer in zip(actions, (first, *answers), answers, strict=False)
        ]
        opening = description.harness.opening(first.messages)
        # By the event's id the alternatives are drawn, and some take a simulator far longer than others.
        name = task.task_id
        requests.append(BranchRequest(event_id=name, episode_id=name, task=task, opening=opening, steps=tuple(steps)))
    return requests


async def verified(
    requests: Sequence[BranchRequest], pool: SandboxPool, settings: BranchingSettings
) -> list[BranchResult]:
    """Branch all requests, as many episodes at once as the branch role does: as one ends, the next begins."""
    window = asyncio.Semaphore(settings.episodes)

    async def one(request: BranchRequest) -> tuple[BranchResult, ...]:
        async with window:
            return await branch(request, pool, Silence(), Uniform(), settings)

    worked = await asyncio.gather(*map(one, requests))
    return [result for each in worked for result in each]


def operations(
    environment: Environment, requests: Sequence[BranchRequest], results: Sequence[BranchResult]
) -> list[Callable[[], object]]:
    """Return what a sandbox does to its environment for these branches."""
    notebook = Notebook(environment)
    by_episode: dict[str, list[BranchResult]] = {}
    for result in results:
        by_episode.setdefault(result.request_id, []).append(result)
    for request in requests:
        replay = ReplaySession(notebook, _STEP_TIMEOUT_S)
        recorded = as_recorded(request)
        replay.follow(ReferenceTrajectory(request.task, recorded.actions, recorded.expected))
        for result in by_episode[request.event_id]:
            for alternative in result.alternatives:
                replay.restore(result.step)
                replay.step(alternative.action)
    return notebook.done


def plain(done: Sequence[Callable[[], object]]) -> float:
    """Seconds that the plain loop takes."""
    begun = time.perf_counter()
    for operation in done:
        operation()
    return time.perf_counter() - begun


def _warm_ups(first_s: float) -> int:
    """Return how many are left to do after a first one of `first_s` seconds."""
    return 0 if first_s > _LONG_S else _WARM_UPS - 1


class Neighbour:
    """A process with a plain loop of its own, which begins when all others do."""

    start: ClassVar[Barrier]
    done: ClassVar[list[Callable[[], object]]]

    @classmethod
    def prepare(
        cls, name: str, requests: Sequence[BranchRequest], results: Sequence[BranchResult], start: Barrier
    ) -> None:
        cls.start, cls.done = start, operations(load_environment(name)(), requests, results)
        for _ in range(_warm_ups(plain(cls.done))):
            plain(cls.done)

    @classmethod
    def plain(cls, _number: int) -> float:
        cls.start.wait()
        return plain(cls.done)


async def measure(name: str, rounds: int, isolation: Isolation) -> Report:
    cores = len(os.sched_getaffinity(0))
    settings = BranchingSettings(alternatives=4, sandboxes=cores, step_timeout_s=_STEP_TIMEOUT_S)
    async with SandboxPool(name, cores, settings.step_timeout_s, isolation=isolation) as pool:
        requests = await record(pool)
        results = await verified(requests, pool, settings)
        done = operations(load_environment(name)(), requests, results)
        for _ in range(_warm_ups(plain(done))):
            await verified(requests, pool, settings)
            plain(done)
        ours, theirs, together = [], [], []
        processes = get_context("spawn")
        prepared = (name, requests, results, processes.Barrier(cores))
        with ProcessPoolExecutor(cores, processes, Neighbour.prepare, prepared) as neighbours:
            for _ in range(rounds):
                begun = time.perf_counter()
                results = await verified(requests, pool, settings)
                ours.append(time.perf_counter() - begun)
                theirs.append(plain(done) / cores)
                together.append(max(neighbours.map(Neighbour.plain, range(cores))) / cores)
        way = (await pool.describe()).capabilities.restores[0]
    branches = sum(len(result.alternatives) for result in results)
    ratios = [limit / taken for limit, taken in zip(theirs, ours, strict=True)]
    return Report(
        environment=name,
        isolation=isolation,
        restored_by=way,
        episodes=len(requests),
        branches=branches,
        verified_per_s=round(branches / median(ours), 1),
        plain_per_s=round(branches / median(theirs), 1),
        side_by_side_per_s=round(branches / median(together), 1),
        ratios=tuple(round(ratio, 3) for ratio in ratios),
        ratio=round(median(ratios), 3),
    )


async def growth(name: str, isolation: Isolation) -> Growth:
    """Of the longest of a few demonstrations, in one sandbox."""
    async with SandboxPool(name, 1, _STEP_TIMEOUT_S, isolation=isolation) as pool:
        request = max(await record(pool), key=lambda each: len(each.steps))
        async with restored(request, pool) as episode:
            actions = [step.action for step in request.steps] * 8
            depths = sorted({round(share * (len(request.steps) - 1)) for share in (0, 0.25, 0.5, 0.75, 1)})

            async def microseconds(step: int, alternatives: int) -> float:
                times = []
                for number in range(20):
                    begun = time.perf_counter()
                    await episode.branch(step, actions[number : number + alternatives])
                    times.append((time.perf_counter() - begun) / alternatives * 1e6)
                return round(median(times), 1)

            await microseconds(depths[-1], 8)
            return Growth(
                by_depth={depth: await microseconds(depth, 4) for depth in depths},
                by_alternatives={most: await microseconds(depths[len(depths) // 2], most) for most in (1, 2, 4, 8)},
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", action="append", choices=sorted(CONTESTS), help="by default all of them")
    parser.add_argument("--rounds", type=int, default=3, help="how often each runs all of them; medians are reported")
    parser.add_argument("--isolation", choices=["auto", "bubblewrap", "landlock", "none"], default="auto")
    parser.add_argument("--growth", action="store_true", help="also the cost by depth and by alternatives")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    names = options.environment or sorted(CONTESTS)
    reports: dict[str, Report] = {}
    grown: dict[str, Growth] = {}
    for name in names:
        report = reports[name] = asyncio.run(measure(name, options.rounds, options.isolation))
        print(f"{name}: {report.verified_per_s} verified branches/s, limit {report.plain_per_s}, ratio {report.ratio}")
        print(f"  plain loops side by side: {report.side_by_side_per_s}")
        if options.growth:
            each = grown[name] = asyncio.run(growth(name, options.isolation))
            print(f"  us a branch by depth {each.by_depth}, by alternatives {each.by_alternatives}")
    if options.json:
        replayed = [report for report in reports.values() if report.restored_by == Restore.REPLAY]
        worst = min(replayed or reports.values(), key=lambda report: report.ratio)
        print(
            json.dumps(
                {
                    "environments": {name: asdict(report) for name, report in reports.items()},
                    "growth": {name: asdict(each) for name, each in grown.items()},
                    "ratios": worst.ratios,
                    "ratio": worst.ratio,
                }
            )
        )


if __name__ == "__main__":
    main()
