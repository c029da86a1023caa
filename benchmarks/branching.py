"""Verified branches per second through the sandbox processes, against the simulator driven by a bare loop.

The bare loop resets and steps through the very same branches in its own process, and verifies nothing. The ratio is
what isolation and verification leave of its rate. Run `python benchmarks/branching.py --json`.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from streams.branching import BranchingSettings, Samples, branch
from streams.events import BranchRequest, BranchResult, Message, RecordedStep
from streams.sandboxes.harness import ChatHarness
from streams.sandboxes.pool import SandboxPool
from streams.sandboxes.textworld_express import TextWorldExpress


@dataclass(frozen=True, slots=True)
class Report:
    """Rates are branches per second; each branch is a reset, the replay of its prefix, and one action."""

    episodes: int
    branches: int
    sandboxes: int
    verified_per_s: float
    bare_per_s: float
    ratio: float


async def no_policy(messages: Sequence[Message]) -> Samples:
    """Random valid actions alone: the rate of a policy is measured elsewhere."""
    return Samples()


def record(game: TextWorldExpress, episodes: int) -> list[BranchRequest]:
    requests = []
    for task in game.task_list("twc", "train")[:episodes]:
        actions = game.demonstration(task)
        opening = ChatHarness().opening(game.reset(task).text)
        steps = tuple(RecordedStep(action=action, observation=game.step(action).text) for action in actions)
        requests.append(BranchRequest(episode_id=task.task_id, task=task, opening=opening, steps=steps))
    return requests


async def verified(
    requests: Sequence[BranchRequest], pool: SandboxPool, settings: BranchingSettings
) -> list[BranchResult]:
    """Branch all requests, a batch of episodes at a time, as the branch role does."""
    results: list[BranchResult] = []
    for start in range(0, len(requests), settings.episodes):
        batch = requests[start : start + settings.episodes]
        for worked in await asyncio.gather(*(branch(request, pool, no_policy, settings) for request in batch)):
            results.extend(worked)
    return results


def bare(game: TextWorldExpress, requests: Sequence[BranchRequest], results: Sequence[BranchResult]) -> None:
    by_id = {request.event_id: request for request in requests}
    for result in results:
        for alternative in result.alternatives:
            game.reset(result.task)
            for step in by_id[result.request_id].steps[: result.step]:
                game.step(step.action)
            game.step(alternative.action)


async def measure(episodes: int, sandboxes: int) -> Report:
    settings = BranchingSettings(sandboxes=sandboxes)
    game = TextWorldExpress()
    requests = record(game, episodes)
    async with SandboxPool("textworld_express", sandboxes) as pool:
        # The virtual machines of both sides compile what they run often, so both have run it once.
        results = await verified(requests, pool, settings)
        bare(game, requests, results)
        begun = time.perf_counter()
        results = await verified(requests, pool, settings)
        between = time.perf_counter()
        bare(game, requests, results)
        ended = time.perf_counter()
    branches = sum(len(result.alternatives) for result in results)
    verified_per_s, bare_per_s = branches / (between - begun), branches / (ended - between)
    return Report(
        episodes=episodes,
        branches=branches,
        sandboxes=sandboxes,
        verified_per_s=round(verified_per_s, 1),
        bare_per_s=round(bare_per_s, 1),
        ratio=round(verified_per_s / bare_per_s, 3),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--sandboxes", type=int, default=1, help="sandbox processes (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    options = parser.parse_args()
    report = asdict(asyncio.run(measure(options.episodes, options.sandboxes)))
    print(json.dumps(report) if options.json else "\n".join(f"{name:>15} {value}" for name, value in report.items()))


if __name__ == "__main__":
    main()
