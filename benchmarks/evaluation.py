"""Held-out tasks per second of the arena, against the same prompts in full batches without an environment.

    python -m benchmarks.evaluation [--tasks 128] [--rounds 3] [--json]

The base model plays tasks of the demo's text game as a gate does, in isolated sandboxes. Then the requests that it made
are sent to the same server again, as many at once as there were episodes, whenever one is answered the next: the most
that the engine can give. `ratio` is the arena's rate over that one. Rounds of both take turns, since each finds in the
server's cache what the other left there; `same` is the share of tasks that were played alike in all rounds.
"""

import argparse
import asyncio
import json
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import structlog

from daemon.config import Settings
from daemon.demo.text_game import TWC
from daemon.learning.domain import domain_tasks
from daemon.supervisor import inference_service
from evaluation.arena import Arena
from evaluation.rollouts import Rollout
from learners.base_model import resolve_base
from ratchet_client.events import Task
from ratchet_client.messages import Message, Tools
from streams.policy.client import PolicyClient, Reply, Sampling
from streams.runtime.processes import free_port
from streams.sandboxes.pool import SandboxPool, sandbox_pool


@dataclass(frozen=True, slots=True)
class Request:
    """A request of an episode: the turn, counted from 0, and what was asked."""

    turn: int
    messages: tuple[Message, ...]
    sampling: Sampling
    tools: Tools


class Recording(PolicyClient):
    """A client that notes what is asked."""

    requests: list[Request]

    async def chat(
        self,
        model: str,
        messages: Sequence[Message],
        sampling: Sampling,
        *,
        tools: Tools = (),
        n: int = 1,
        logprobs: bool = False,
    ) -> list[Reply]:
        turn = sum(message.role == "assistant" for message in messages)
        self.requests.append(Request(turn, tuple(messages), sampling, tools))
        return await super().chat(model, messages, sampling, tools=tools, n=n, logprobs=logprobs)


@dataclass(frozen=True, slots=True)
class Result:
    """Rates are tasks per second of wall time: medians of the rounds; `ratio` is that of the medians."""

    tasks: int
    requests: int
    concurrency: int
    threads: int
    tasks_per_s: float
    without_environment_per_s: float
    same: float
    ratios: tuple[float, ...]
    ratio: float


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[tuple[Recording, SandboxPool, tuple[Task, ...]]]:
    """A running server and sandboxes, and the tasks of the text game."""
    base = await asyncio.to_thread(resolve_base, settings.model, settings.home)
    with tempfile.TemporaryDirectory(prefix="ratchet-evaluation-") as scratch:
        engine = settings.engine.model_copy(update={"port": free_port()})
        chosen = settings.model_copy(update={"home": Path(scratch), "engine": engine, "domain": TWC}).settled()
        server = inference_service(chosen, base)
        try:
            await server.start()
            await server.ready()
            async with (
                sandbox_pool(TWC.environment, chosen.branching, size=1) as pool,
                Recording(chosen.serving.inference_url) as policy,
            ):
                policy.requests = []
                yield policy, pool, (await domain_tasks(TWC, pool)).tasks
        finally:
            await server.stop()


async def batched(policy: PolicyClient, requests: Sequence[Request], concurrency: int) -> None:
    """Send the requests, `concurrency` at once."""
    left = iter(requests)

    async def work() -> None:
        for request in left:
            await PolicyClient.chat(policy, "base", request.messages, request.sampling, tools=request.tools)

    await asyncio.gather(*(work() for _ in range(concurrency)))


def in_turns(requests: Sequence[Request], concurrency: int) -> list[Request]:
    """The requests turn by turn, of as many episodes at a time as are played at once: prefixes come before what they
    are prefixes of.
    """
    episodes: dict[tuple[Message, ...], list[Request]] = {}
    for request in requests:
        first = next(
            n for n, message in enumerate((*request.messages, None)) if message is None or message.role == "assistant"
        )
        episodes.setdefault(request.messages[:first], []).append(request)
    ordered = list(episodes.values())
    chunks = (ordered[start : start + concurrency] for start in range(0, len(ordered), concurrency))
    return [
        request
        for chunk in chunks
        for request in sorted((each for episode in chunk for each in episode), key=lambda each: each.turn)
    ]


async def measure(settings: Settings, count: int, rounds: int) -> Result:
    rollouts = settings.gate.rollouts
    async with started(settings) as (policy, pool, tasks):
        listed = tasks[:count]
        harness = (await pool.describe()).harness
        ours, theirs, played = [], [], list[list[Rollout]]()
        # The first round fills the caches, and starts the sandboxes.
        for number in range(rounds + 1):
            policy.requests = []
            begun = time.perf_counter()
            played.append(list(await Arena(policy, pool, harness, rollouts).play(listed, "base")))
            ours.append(time.perf_counter() - begun)
            requests = in_turns(policy.requests, rollouts.concurrency)
            begun = time.perf_counter()
            await batched(policy, requests, rollouts.concurrency)
            theirs.append(time.perf_counter() - begun)
            print(f"round {number}: {ours[-1]:.1f} s with the environment, {theirs[-1]:.1f} s without", flush=True)
    ratios = [limit / taken for limit, taken in zip(theirs[1:], ours[1:], strict=True)]
    alike = sum(all(other == one for other in others) for one, *others in zip(*played, strict=True))
    return Result(
        tasks=len(listed),
        requests=len(requests),
        concurrency=rollouts.concurrency,
        threads=settings.engine.threads,
        tasks_per_s=round(len(listed) / median(ours[1:]), 2),
        without_environment_per_s=round(len(listed) / median(theirs[1:]), 2),
        same=round(alike / len(listed), 3),
        ratios=tuple(round(ratio, 3) for ratio in ratios),
        ratio=round(median(theirs[1:]) / median(ours[1:]), 3),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3, help="after one that is not counted")
    parser.add_argument("--concurrency", type=int, help="episodes at once; by default that of `gate.rollouts`")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    settings = Settings.read()
    if options.concurrency:
        rollouts = settings.gate.rollouts.model_copy(update={"concurrency": options.concurrency})
        settings = settings.model_copy(update={"gate": settings.gate.model_copy(update={"rollouts": rollouts})})
    result = asyncio.run(measure(settings, options.tasks, options.rounds))
    print(f"{result.tasks_per_s} tasks/s, {result.without_environment_per_s} without the environment")
    if options.json:
        print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
