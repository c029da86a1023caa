"""Branching one trusted episode: restore its states in a sandbox, verify them, and try other actions there.

The branch role calls `branch`. A state whose restored observations are not the recorded ones is dropped, and counted.
"""

import asyncio
import random
from dataclasses import dataclass, field
from typing import TypeAlias

from aiolimiter import AsyncLimiter

from ratchet_client.ids import content_id
from ratchet_client.messages import Messages
from streams.branch_events import NO_SANDBOX, Alternative, BranchRequest, BranchResult, Failure, Fidelity
from streams.branching.candidates import Proposal, Suggestions, propose
from streams.branching.restored_episode import Trial, restored
from streams.branching.selectors.selector import Selector, Situation, allocate
from streams.branching.settings import BranchingSettings
from streams.environments.environment import Restore
from streams.errors import SandboxError
from streams.policy.served import Policy
from streams.redaction.redactor import Redactor
from streams.sandboxes.pool import SandboxPool
from streams.sandboxes.protocol import Description

# Of an answer: who says what. Which call it answers is not part of what it says.
_Said: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Branched:
    """The progress of branching at one state. `seen` are the keys of what was tried, `answers` what came back."""

    step: int
    seen: set[str]
    answers: set[_Said]
    errors_left: int
    policy: str = ""
    over: bool = False
    reason: str = ""
    alternatives: list[Alternative] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def take(self, proposal: Proposal, trial: Trial) -> None:
        """Note what became of a proposal."""
        if trial.observation is None:
            self.failures.append(Failure(action=proposal.action, failure_kind=trial.failure_kind))
            return
        answer = trial.observation
        self.answers.add(_said(answer.messages))
        self.errors_left -= proposal.source == "policy" and not proposal.promising
        self.alternatives.append(
            Alternative(
                action=proposal.action,
                observation=answer.messages,
                done=answer.done,
                score=answer.score,
                source=proposal.source,
            )
        )


async def branch(
    request: BranchRequest,
    pool: SandboxPool,
    policy: Policy,
    selector: Selector,
    settings: BranchingSettings,
    limiter: AsyncLimiter | None = None,
    redactor: Redactor | None = None,
) -> tuple[BranchResult, ...]:
    """Branch the states of `request` that the selector favours: one result for each state, in order.

    The states go side by side, so that the policy's server computes the episode they share once. Branches are not
    begun faster than `limiter` allows. The results are redacted as the recording was, by `redactor`.
    """
    try:
        description = await opened(pool)
        async with restored(request, pool, redactor) as episode:
            suggestions = Suggestions(request, episode, description, policy, settings)
            states = await _Branching(suggestions, selector, limiter).run()
            divergence = episode.followed.divergence
    except SandboxError as error:
        return tuple(dropped(request, step, str(error), settings) for step in range(len(request.steps)))
    return tuple(
        _result(request, state, fidelity(description))
        if not state.reason
        else dropped(request, state.step, state.reason, settings)
        for state in states
    ) + tuple(dropped(request, step, divergence, settings) for step in range(len(states), len(request.steps)))


async def opened(pool: SandboxPool) -> Description:
    """The environment's description, which takes a sandbox. Raises `SandboxError` that begins with `NO_SANDBOX`."""
    try:
        return await pool.describe()
    except SandboxError as error:
        raise SandboxError(f"{NO_SANDBOX}: {error}") from error


def _result(request: BranchRequest, state: _Branched, restored_by: Fidelity) -> BranchResult:
    return BranchResult(
        event_id=BranchResult.id_for(request.event_id, state.step),
        request_id=request.event_id,
        episode_id=request.episode_id,
        task=request.task,
        step=state.step,
        requested=len(state.alternatives) + len(state.failures),
        fidelity=restored_by,
        policy=state.policy,
        alternatives=tuple(state.alternatives),
        failures=tuple(state.failures),
    )


async def situations(suggestions: Suggestions, selector: Selector) -> list[Situation]:
    """The selector's view of the states that could be restored."""
    request = suggestions.request
    losses = await _losses(suggestions) if selector.needs_likelihoods else {}
    return [
        Situation(step, len(request.steps), state.fingerprint, losses.get(step))
        for step, state in enumerate(suggestions.episode.followed.states)
    ]


async def _losses(suggestions: Suggestions) -> dict[int, float]:
    """The policy's loss on what each step led to, by step; nothing from an unavailable policy."""
    request, steps = suggestions.request, len(suggestions.request.steps)
    found = await suggestions.policy.negative_log_likelihoods(request.state(steps), request.tools(steps))
    answered = [number for number, step in enumerate(request.steps) if step.observation]
    # The opening may hold examples, whose answers are scored too.
    return dict(zip(answered, (found or ())[-len(answered) :], strict=False)) if answered else {}


async def acquire(limiter: AsyncLimiter | None, branches: int) -> None:
    """Return when `branches` may be run. They are asked for singly: all at once could be more than the limit itself."""
    if limiter is not None:
        for _ in range(branches):
            await limiter.acquire()


def fidelity(description: Description) -> Fidelity:
    """Return how exactly the environment restores states."""
    return "sandbox_replayed" if description.capabilities.restores[0] is Restore.REPLAY else "sandbox_exact"


def dropped(request: BranchRequest, step: int, reason: str, settings: BranchingSettings) -> BranchResult:
    """The result of a state at which nothing could be tried; what would have been tried counts as requested."""
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


@dataclass(slots=True)
class _Branching:
    """The work on one episode."""

    suggestions: Suggestions
    selector: Selector
    limiter: AsyncLimiter | None

    @property
    def request(self) -> BranchRequest:
        return self.suggestions.request

    @property
    def settings(self) -> BranchingSettings:
        return self.suggestions.settings

    async def run(self) -> list[_Branched]:
        """Branch in rounds: each state gets some of what is left, until it brings nothing new or all is spent."""
        weights = self.selector.weigh(await situations(self.suggestions, self.selector))
        keys = await self.suggestions.keys([step.action for step in self.request.steps[: len(weights)]])
        states = list(map(self._begin, range(len(weights)), keys))
        left = self.settings.branches_per_episode or len(states) * self.settings.alternatives
        while left > 0 and (open_states := [state for state in states if not state.over]):
            grants = allocate([weights[state.step] for state in open_states], left, self._round_most)
            if not any(grants):
                break
            await acquire(self.limiter, sum(grants))
            tried = await asyncio.gather(*map(self._round, open_states, grants))
            left -= sum(tried)
        return states

    @property
    def _round_most(self) -> int:
        return self.settings.round if self.settings.adaptive else self.settings.alternatives

    def _begin(self, step: int, recorded: str) -> _Branched:
        """The state before action number `step`; `recorded` is the key of that action."""
        return _Branched(
            step=step,
            seen={"", recorded},
            answers={_said(self.request.steps[step].observation)},
            errors_left=round(self.settings.invalid_share * self.settings.alternatives),
        )

    async def _round(self, state: _Branched, grant: int) -> int:
        """Try up to `grant` actions at a state; returns how many were tried. A state that teaches no more is over."""
        if not grant:
            return 0
        try:
            proposals = await self._proposals(state, grant)
            trials = await self.suggestions.episode.branch(state.step, [proposal.action for proposal in proposals])
        except SandboxError as error:
            state.reason, state.over = self.suggestions.episode.reason(error), True
            return 0
        new = any(
            trial.observation is not None and _said(trial.observation.messages) not in state.answers for trial in trials
        )
        for proposal, trial in zip(proposals, trials, strict=True):
            state.take(proposal, trial)
        state.over = len(state.alternatives) >= self.settings.alternatives or not (new and self.settings.adaptive)
        return len(trials)

    async def _proposals(self, state: _Branched, most: int) -> tuple[Proposal, ...]:
        sampled, state.policy = await self.suggestions.sampled(state.step)
        generator = random.Random(
            content_id(str(self.settings.seed), self.request.event_id, str(state.step), str(len(state.seen)))
        )
        allowed = await self.suggestions.allowed(state.step)
        most = min(most, self.settings.alternatives - len(state.alternatives))
        return propose(sampled, allowed, state.seen, most, state.errors_left, generator)


def _said(messages: Messages) -> _Said:
    return tuple((message.role, message.text) for message in messages)
