"""The branch role: takes trusted episodes from `ratchet.branches`, branches them, publishes `ratchet.transitions`.

Any number of these processes share the work. An episode is acknowledged when all its results are in the log; one that
is worked twice after a crash gives results of the same ids.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial

import structlog
from pydantic import ValidationError

from streams.branching import BranchingSettings, Sample, branch, dropped, sample_policy
from streams.crash_points import CrashPoint, reach
from streams.decoding import Unreadable
from streams.events import BranchRequest, BranchResult
from streams.faust_worker import build_app, consume, publish, run
from streams.letters import refusal_letter
from streams.log import Outgoing, Received
from streams.policy import PolicyClient
from streams.sandboxes.pool import SandboxPool
from streams.sandboxes.protocol import registered_environments
from streams.settings import KafkaSettings
from streams.topics import create_topics

log = structlog.get_logger()

ROLE = "branch"


async def serve(kafka: KafkaSettings, branching: BranchingSettings, stop: asyncio.Event) -> None:
    """Work until `stop` is set or this task is cancelled.

    `kafka.bootstrap` must name a cluster. Raises a `RatchetError` when the role cannot go on: the process should then
    end with an error and be started again, and does again what it had not acknowledged.
    """
    await asyncio.to_thread(create_topics, kafka)
    async with AsyncExitStack() as stack:
        policy = await stack.enter_async_context(PolicyClient(branching.policy_url))
        pools = {
            name: await stack.enter_async_context(SandboxPool(name, branching.sandboxes, branching.step_timeout_s))
            for name in sorted(registered_environments())
        }
        sample = partial(sample_policy, policy, branching)
        app = build_app(ROLE, kafka, bundle=branching.episodes)

        async def handle(batch: list[Received]) -> None:
            worked = await asyncio.gather(*(work(received, kafka, branching, pools, sample) for received in batch))
            reach(CrashPoint.RESULTS_PUBLISH_BEFORE)
            await publish(app, [message for messages in worked for message in messages])
            reach(CrashPoint.RESULTS_PUBLISH_AFTER)

        consume(app, kafka.branches_topic, handle)
        log.info("branching", environments=sorted(pools), policy=branching.policy_url, model=branching.model)
        await run(app, stop)


async def work(
    received: Received,
    kafka: KafkaSettings,
    branching: BranchingSettings,
    pools: Mapping[str, SandboxPool],
    sample: Sample,
) -> list[Outgoing]:
    """What is to be published for one record: a result for each state, or a dead letter for what is no request."""
    try:
        request = BranchRequest.model_validate_json(received.value or b"")
    except ValidationError as error:
        reason = f"{received.topic}: no branch request, {error.error_count()} fields are wrong"
        log.error("unreadable branch request", partition=received.partition, offset=received.offset)
        return [refusal_letter(received, Unreadable(reason), kafka.dead_letters_topic)]
    pool = pools.get(request.task.environment)
    if pool is None:
        # Its tools may be anybody's production: what has no sandbox is executed nowhere.
        reason = f"no sandbox is installed for the environment {request.task.environment!r}"
        results: tuple[BranchResult, ...] = tuple(
            dropped(request, step, reason, branching) for step in range(len(request.steps))
        )
    else:
        results = await branch(request, pool, sample, branching)
    log.info(
        "episode branched",
        episode=request.episode_id,
        states=len(results),
        dropped=sum(result.fidelity == "dropped" for result in results),
        alternatives=sum(len(result.alternatives) for result in results),
    )
    return [Outgoing(kafka.transitions_topic, request.episode_id.encode(), result.to_json()) for result in results]
