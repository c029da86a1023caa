"""The branch role: takes episodes from `ratchet.branches` and publishes what comes of them on `ratchet.transitions`.

Trusted episodes are branched, and failed ones recovered from.

Any number of these processes share the work. An episode is acknowledged when all its results are in the log; one that
is worked twice after a crash gives results of the same ids.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Self

import structlog
from aiolimiter import AsyncLimiter
from pydantic import ValidationError

from ratchet_client.crash_points import CrashPoint, reach
from streams.branch_events import NO_SANDBOX, BranchRequest, BranchResult, RecoveryResult
from streams.branching.branch import branch, dropped
from streams.branching.recovery import recover, unrecovered
from streams.branching.selectors import SELECTORS
from streams.branching.selectors.selector import Selector
from streams.branching.settings import BranchingSettings
from streams.environments.registry import registered_environments
from streams.errors import UnjudgeableError
from streams.kafka.newer_records import refuse_newer
from streams.kafka.records import Outgoing, Received
from streams.kafka.refusals import Unreadable, dead_letter_record
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics
from streams.kafka.worker import build_app, consume_each, publish, run
from streams.policy.client import PolicyClient
from streams.policy.served import Policy, ServedPolicy
from streams.redaction.redactor import Redactor
from streams.sandboxes.pool import SandboxPool, sandbox_pool
from streams.schema_versions import EVENTS

log = structlog.get_logger()

ROLE = "branch"


@dataclass(frozen=True, slots=True)
class BranchContext:
    """The resources that the episodes of one worker share. The selectors remember over episodes."""

    settings: BranchingSettings
    pools: Mapping[str, SandboxPool]
    policy: Policy
    branching_selector: Selector
    recovery_selector: Selector
    limiter: AsyncLimiter | None
    redactor: Redactor | None = None

    @classmethod
    def of(
        cls,
        settings: BranchingSettings,
        pools: Mapping[str, SandboxPool],
        policy: Policy,
        redactor: Redactor | None = None,
    ) -> Self:
        """As the settings say."""
        return cls(
            settings,
            pools,
            policy,
            SELECTORS[settings.selector](),
            SELECTORS[settings.recovery.selector](),
            AsyncLimiter(settings.branches_per_minute) if settings.branches_per_minute else None,
            redactor,
        )


async def serve(
    kafka: KafkaSettings, branching: BranchingSettings, stop: asyncio.Event, redactor: Redactor | None = None
) -> None:
    """Work until `stop` is set or this task is cancelled.

    `redactor` is that of the record role: with its settings and its key, episodes whose recordings hold placeholders
    can be restored.
    `kafka.bootstrap` must name a cluster. Raises a `RatchetError` when the role cannot go on: the process should then
    end with an error and be started again, and does again what it had not acknowledged.
    """
    await asyncio.to_thread(create_topics, kafka)
    async with AsyncExitStack() as stack:
        token = branching.policy_token.get_secret_value()
        client = await stack.enter_async_context(PolicyClient(branching.policy_url, token=token))
        pools = {
            name: await stack.enter_async_context(sandbox_pool(name, branching, branching.sandboxes))
            for name in sorted(registered_environments())
        }
        context = BranchContext.of(
            branching, pools, ServedPolicy(client, branching.model, branching.policy_patience_s), redactor
        )
        app = build_app(ROLE, kafka, bundle=1)

        async def handle(records: list[Received]) -> None:
            for received in records:
                messages = await work(received, kafka, context)
                reach(CrashPoint.RESULTS_PUBLISH_BEFORE)
                await publish(app, messages)
                reach(CrashPoint.RESULTS_PUBLISH_AFTER)

        consume_each(app, kafka.branches_topic, handle, branching.episodes)
        log.info("branching", environments=sorted(pools), policy=branching.policy_url, model=branching.model)
        await run(app, stop)


async def work(received: Received, kafka: KafkaSettings, context: BranchContext) -> list[Outgoing]:
    """The messages to publish for one record: the results of its episode, or a dead-letter record.

    Raises `NewerRecordError`.
    """
    if received.unreadable is not None:
        return [dead_letter_record(received, Unreadable(received.unreadable), kafka.dead_letters_topic)]
    try:
        request = BranchRequest.model_validate_json(received.value or b"")
    except ValidationError as error:
        refuse_newer(received, EVENTS)
        reason = f"{received.topic}: no branch request, {error.error_count()} fields are wrong"
        log.error("unreadable branch request", partition=received.partition, offset=received.offset)
        return [dead_letter_record(received, Unreadable(reason), kafka.dead_letters_topic)]
    results = await (_branched(request, context) if request.verdict == "trusted" else _recovered(request, context))
    told = [_redacted(result, context) for result in results]
    for result in told:
        _log_dropped(result)
    return [Outgoing(kafka.transitions_topic, request.episode_id.encode(), result.to_json()) for result in told]


def _log_dropped(result: BranchResult | RecoveryResult) -> None:
    """Log why nothing was tried. The result must be redacted: a reason quotes what a sandbox showed."""
    if result.fidelity != "dropped":
        return
    about = {"episode": result.episode_id, "task": result.task.task_id, "reason": result.reason}
    if isinstance(result, BranchResult):
        log.warning("state dropped", step=result.step, **about)
    else:
        log.warning("episode dropped", **about)


def _redacted(result: BranchResult | RecoveryResult, context: BranchContext) -> BranchResult | RecoveryResult:
    """The result as the record role will store it: the topic is to hold no more than the store."""
    if context.redactor is None:
        return result
    try:
        return context.redactor.redact_result(result)[0]
    except UnjudgeableError as error:
        withheld: dict[str, object] = {"fidelity": "dropped", "reason": f"the result is withheld: {error}"}
        emptied = ("alternatives", "failures") if isinstance(result, BranchResult) else ("recoveries",)
        return result.model_copy(update=withheld | dict.fromkeys(emptied, ()))


async def _branched(request: BranchRequest, context: BranchContext) -> tuple[BranchResult, ...]:
    pool = context.pools.get(request.task.environment)
    if pool is None:
        reason = _no_sandbox(request)
        return tuple(dropped(request, step, reason, context.settings) for step in range(len(request.steps)))
    results = await branch(
        *(request, pool, context.policy, context.branching_selector),
        *(context.settings, context.limiter, context.redactor),
    )
    log.info(
        "episode branched",
        episode=request.episode_id,
        states=len(results),
        dropped=sum(result.fidelity == "dropped" for result in results),
        alternatives=sum(len(result.alternatives) for result in results),
        failures=sum(len(result.failures) for result in results),
    )
    return results


async def _recovered(request: BranchRequest, context: BranchContext) -> tuple[RecoveryResult, ...]:
    pool = context.pools.get(request.task.environment)
    if pool is None:
        return (unrecovered(request, _no_sandbox(request)),)
    result = await recover(
        *(request, pool, context.policy, context.recovery_selector),
        *(context.settings, context.limiter, context.redactor),
    )
    log.info(
        "failed episode resumed",
        episode=request.episode_id,
        attempts=result.attempts,
        recoveries=len(result.recoveries),
    )
    return (result,)


def _no_sandbox(request: BranchRequest) -> str:
    # Its tools may be anybody's production: what has no sandbox is executed nowhere.
    return f"{NO_SANDBOX}: none is installed for the environment {request.task.environment!r}"
