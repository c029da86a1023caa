"""Branching one trusted episode: restore each of its states in a sandbox, verify it, and try other actions there.

The branch role calls `branch`. A state whose restored observations are not the recorded ones is dropped, and counted.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field
from tenacity import (
    AsyncRetrying,
    RetryError,
    retry,
    retry_if_exception_type,
    retry_if_not_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from streams.errors import PolicyError, SandboxError
from streams.events import Alternative, BranchRequest, BranchResult, Message
from streams.ids import content_id
from streams.policy import PolicyClient, Sampling
from streams.sandboxes.environment import Observation
from streams.sandboxes.harness import ChatHarness, canonical
from streams.sandboxes.pool import SandboxPool, SandboxSession

log = structlog.get_logger()

_HARNESS = ChatHarness()
_LONGEST_WAIT_S = 5.0


class BranchingSettings(BaseModel):
    """What is tried at each state of a trusted episode, and with what means."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alternatives: int = Field(default=3, ge=1, description="Most alternatives at one state.")
    samples: int = Field(default=6, ge=0, description="Replies drawn from the policy at one state; many are repeats.")
    temperature: float = Field(
        default=1.2, gt=0, description="Hot, because a policy that imitated these states says little else."
    )
    invalid_share: float = Field(
        default=0.3, ge=0, le=1, description="Largest share of alternatives that the environment does not understand."
    )
    model: str = Field(default="assistant", description="The model that proposes: an alias, an adapter or the base.")
    policy_url: str = Field(default="http://127.0.0.1:8420", description="The OpenAI-compatible server of the policy.")
    policy_patience_s: float = Field(
        default=30.0, ge=0, description="How long a silent policy is asked again before valid actions alone must do."
    )
    sandboxes: int = Field(default=1, ge=1, description="Sandbox processes of each environment.")
    step_timeout_s: float = Field(default=10.0, gt=0, description="Longest time, in seconds, for a step or a reset.")
    episodes: int = Field(default=8, ge=1, description="Episodes branched at the same time.")
    seed: int = Field(default=0, description="Seed of the valid actions that are drawn.")


@dataclass(frozen=True, slots=True)
class Proposal:
    """An alternative that is yet to be tried."""

    action: str
    source: Literal["policy", "valid_actions"]


@dataclass(frozen=True, slots=True)
class Samples:
    """Actions that the policy would take at one state, and the name of the model that really answered."""

    actions: tuple[str, ...] = ()
    model: str = ""


Sample = Callable[[Sequence[Message]], Awaitable[Samples]]


class DivergedError(SandboxError):
    """A replay did not give what was recorded, so what would follow from it says nothing about the recorded state."""


def propose(
    trusted: str, sampled: Iterable[str], valid: Sequence[str], settings: BranchingSettings, generator: random.Random
) -> tuple[Proposal, ...]:
    """At most `settings.alternatives` different actions, none of them the trusted one.

    The policy's own come first. One that differs from a valid action only in its spelling becomes that action; of the
    others a few are kept, because errors teach too. Random valid actions fill what is left.
    """
    spelling = {canonical(action): action for action in valid}
    errors_left = round(settings.invalid_share * settings.alternatives)
    seen = {canonical(trusted), ""}
    proposals: list[Proposal] = []
    for action in sampled:
        key = canonical(action)
        if key in seen or len(proposals) == settings.alternatives:
            continue
        seen.add(key)
        if key in spelling:
            proposals.append(Proposal(spelling[key], "policy"))
        elif errors_left:
            errors_left -= 1
            proposals.append(Proposal(" ".join(action.split()), "policy"))
    unseen = sorted(action for key, action in spelling.items() if key not in seen)
    missing = min(settings.alternatives - len(proposals), len(unseen))
    return (*proposals, *(Proposal(action, "valid_actions") for action in generator.sample(unseen, missing)))


async def sample_policy(client: PolicyClient, settings: BranchingSettings, messages: Sequence[Message]) -> Samples:
    """Draw actions from the policy at a state. A policy that stays silent gives none: branching goes on without it."""
    if not settings.samples:
        return Samples()
    sampling = Sampling(temperature=settings.temperature)
    try:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(PolicyError),
            stop=stop_after_delay(settings.policy_patience_s),
            wait=wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT_S),
        ):
            with attempt:
                replies = await client.chat(settings.model, messages, sampling, n=settings.samples)
                return Samples(tuple(_HARNESS.parse(reply.text) for reply in replies), replies[0].model)
    except RetryError as error:
        log.warning(
            "policy silent, branching with valid actions only",
            policy=settings.policy_url,
            model=settings.model,
            reason=str(error.last_attempt.exception()),
        )
    return Samples()


async def branch(
    request: BranchRequest, pool: SandboxPool, sample: Sample, settings: BranchingSettings
) -> tuple[BranchResult, ...]:
    """Branch every state of `request`: one result for each, in order.

    The states go side by side, so that the policy's server computes the episode they share once.
    """

    async def state(step: int) -> BranchResult:
        try:
            valid = await _valid_actions(request, step, pool)
            samples = await sample(request.state(step))
            generator = random.Random(content_id(str(settings.seed), request.event_id, str(step)))
            proposals = propose(request.steps[step].action, samples.actions, valid, settings, generator)
            alternatives = await _execute(request, step, proposals, pool)
        except SandboxError as error:
            return dropped(request, step, str(error), settings)
        return BranchResult(
            event_id=BranchResult.id_for(request.event_id, step),
            request_id=request.event_id,
            episode_id=request.episode_id,
            task=request.task,
            step=step,
            requested=len(proposals),
            fidelity="sandbox_replayed",
            policy=samples.model,
            alternatives=alternatives,
        )

    return tuple(await asyncio.gather(*(state(step) for step in range(len(request.steps)))))


def dropped(request: BranchRequest, step: int, reason: str, settings: BranchingSettings) -> BranchResult:
    """The result of a state at which nothing could be tried; what would have been tried counts as requested."""
    log.warning("state dropped", episode=request.episode_id, step=step, task=request.task.task_id, reason=reason)
    return BranchResult(
        event_id=BranchResult.id_for(request.event_id, step),
        request_id=request.event_id,
        episode_id=request.episode_id,
        task=request.task,
        step=step,
        requested=settings.alternatives,
        fidelity="dropped",
        reason=reason,
    )


# A sandbox that dies takes all its sessions with it, so the work of the innocent ones is done once more.
_once_more = retry(
    retry=retry_if_exception_type(SandboxError) & retry_if_not_exception_type(DivergedError),
    stop=stop_after_attempt(2),
    reraise=True,
)


@_once_more
async def _valid_actions(request: BranchRequest, step: int, pool: SandboxPool) -> tuple[str, ...]:
    async with pool.session() as session:
        await _replay(session, request, step)
        return await session.valid_actions()


@_once_more
async def _execute(
    request: BranchRequest, step: int, proposals: Sequence[Proposal], pool: SandboxPool
) -> tuple[Alternative, ...]:
    alternatives = []
    async with pool.session() as session:
        for proposal in proposals:
            answer = await _replay(session, request, step, proposal.action)
            alternatives.append(
                Alternative(
                    action=proposal.action,
                    observation=answer.text,
                    done=answer.done,
                    score=answer.score,
                    source=proposal.source,
                )
            )
    return tuple(alternatives)


async def _replay(session: SandboxSession, request: BranchRequest, step: int, *then: str) -> Observation:
    """The last observation after the recorded actions before `step` and `then`; every recorded one is compared."""
    recorded = request.steps[:step]
    observations = await session.replay(request.task, (*(past.action for past in recorded), *then))
    expected = (request.opening[-1].content, *(past.observation for past in recorded))
    for number, (wanted, restored) in enumerate(zip(expected, observations, strict=False)):
        if restored.text != wanted:
            where = f"after action {number}" if number else "at the start"
            raise DivergedError(f"the sandbox shows something else than was recorded {where}: {restored.text[:200]!r}")
    return observations[-1]
