"""Recovering from a failed episode: go back to one of its states, act otherwise, and let the policy continue there.

A continuation that ends in a verified success is a *recovery*: a trusted trajectory that begins in the agent's own
mistake. The branch role calls `recover`. An agent that never saw how to continue after an error repeats it to the end.
"""

import asyncio
import random
from dataclasses import dataclass

import structlog
from aiolimiter import AsyncLimiter

from ratchet_client.ids import content_id
from ratchet_client.messages import Messages
from streams.branch_events import BranchRequest, RecordedStep, Recovery, RecoveryResult
from streams.branching.branch import acquire, fidelity, opened, situations
from streams.branching.candidates import Proposal, Suggestions, propose
from streams.branching.restored_episode import restored
from streams.branching.selectors.selector import Selector, allocate
from streams.branching.settings import BranchingSettings
from streams.environments.environment import Observation
from streams.environments.harness import ChatHarness
from streams.errors import SandboxError
from streams.policy.served import Policy
from streams.redaction.redactor import Redactor
from streams.sandboxes.pool import SandboxPool

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Start:
    """The point at which a continuation leaves the episode, and by which action."""

    step: int
    first: Proposal


@dataclass(frozen=True, slots=True)
class _Continued:
    """`actions` and `shown` are the whole trajectory as the sandbox had it, from its reset on."""

    start: _Start
    steps: tuple[RecordedStep, ...]
    last: Observation
    model: str
    actions: Messages
    shown: tuple[Messages, ...]


async def recover(
    request: BranchRequest,
    pool: SandboxPool,
    policy: Policy,
    selector: Selector,
    settings: BranchingSettings,
    limiter: AsyncLimiter | None = None,
    redactor: Redactor | None = None,
) -> RecoveryResult:
    """Continue from states of the failed episode `request`, where the selector favours them.

    The continuations run side by side, so that the policy's server decodes them together. The result is redacted as
    the recording was, by `redactor`.
    """
    try:
        description = await opened(pool)
        async with restored(request, pool, redactor) as episode:
            suggestions = Suggestions(request, episode, description, policy, settings)
            weights = selector.weigh(await situations(suggestions, selector))
            attempts = allocate(weights, settings.recovery.attempts, settings.recovery.attempts)
            await acquire(limiter, sum(attempts))
            found = await asyncio.gather(*(_starts(suggestions, step, most) for step, most in enumerate(attempts)))
            starts = [start for at_one_state in found for start in at_one_state]
            divergence = episode.followed.divergence
    except SandboxError as error:
        return unrecovered(request, str(error))
    if not starts:
        return unrecovered(request, divergence or "there was nothing else to do at its states")
    continuations = await asyncio.gather(
        *(_continue(request, start, pool, policy, description.harness, settings, redactor) for start in starts)
    )
    made = [continuation for continuation in continuations if continuation is not None]
    successes = sorted((each for each in made if each.last.success), key=lambda each: len(each.steps))
    kept: list[_Continued] = []
    for each in successes:
        if len(kept) < settings.recovery.most and await _holds(request, each, pool):
            kept.append(each)
    return RecoveryResult(
        event_id=RecoveryResult.id_for(request.event_id),
        request_id=request.event_id,
        episode_id=request.episode_id,
        task=request.task,
        attempts=len(starts),
        sandbox_steps=sum(len(each.steps) for each in made),
        fidelity=fidelity(description),
        policy=next((each.model for each in made if each.model), ""),
        recoveries=tuple(
            Recovery(left_at=each.start.step, steps=each.steps, score=each.last.score, source=each.start.first.source)
            for each in kept
        ),
    )


def unrecovered(request: BranchRequest, reason: str) -> RecoveryResult:
    """The result of an episode that nothing could be tried in."""
    return RecoveryResult(
        event_id=RecoveryResult.id_for(request.event_id),
        request_id=request.event_id,
        episode_id=request.episode_id,
        task=request.task,
        attempts=0,
        sandbox_steps=0,
        fidelity="dropped",
        reason=reason,
    )


async def _starts(suggestions: Suggestions, step: int, most: int) -> list[_Start]:
    """Up to `most` actions at a state that the agent did not take there."""
    if not most:
        return []
    request, settings = suggestions.request, suggestions.settings
    sampled, _ = await suggestions.sampled(step)
    seen = {"", *await suggestions.keys([request.steps[step].action])}
    generator = random.Random(content_id(str(settings.seed), request.event_id, str(step)))
    # What the environment makes nothing of leaves the agent where it is.
    chosen = propose(sampled, await suggestions.allowed(step), seen, most, 0, generator)
    return [_Start(step, proposal) for proposal in chosen]


async def _continue(
    request: BranchRequest,
    start: _Start,
    pool: SandboxPool,
    policy: Policy,
    harness: ChatHarness,
    settings: BranchingSettings,
    redactor: Redactor | None,
) -> _Continued | None:
    """Take the first action, and let the policy continue for up to `settings.recovery.steps`.

    None when it or the sandbox fails.
    """
    messages, tools = request.state(start.step), request.tools(start.step)
    sampling = settings.sampling(settings.recovery.temperature, harness)
    taken: list[RecordedStep] = []
    action, model, offered = start.first.action, "", request.steps[start.step].tools
    try:
        async with (
            restored(request.up_to(start.step), pool, redactor) as episode,
            episode.at(start.step) as continuation,
        ):
            while True:
                last = await continuation.step(action)
                taken.append(RecordedStep(action=action, observation=last.messages, tools=offered))
                messages = harness.extend(messages, action, last.messages)
                if last.done or len(taken) == settings.recovery.steps or harness.gives_up(messages):
                    actions, shown = tuple(continuation.actions), tuple(continuation.shown)
                    return _Continued(start, tuple(taken), last, model, actions, shown)
                offered = None if last.tools in (None, tools) else last.tools
                tools = tools if offered is None else offered
                samples = await policy.sample(messages, tools, (sampling,), 1)
                if not samples.replies:
                    return None
                (action,), model = episode.recorded([harness.parse(samples.replies[0])]), samples.model
    except SandboxError as error:
        # Not its text, which may quote the sandbox.
        log.warning("continuation lost", episode=request.episode_id, step=start.step, error=type(error).__name__)
        return None


async def _holds(request: BranchRequest, continued: _Continued, pool: SandboxPool) -> bool:
    """Return whether the whole trajectory, replayed in a fresh process, is the same and ends in the same success."""
    try:
        async with pool.fresh_session() as session:
            played = await session.replay(request.task, continued.actions)
    except SandboxError:
        return False
    return played[-1].success and tuple(observation.messages for observation in played) == continued.shown
