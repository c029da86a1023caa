"""The states of one recorded episode, brought back in sandboxes as often as is asked. Branching tries actions there."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, cast

from ratchet_client.messages import Message, Messages
from streams.branch_events import BranchRequest
from streams.branching.raw_episode import RawEpisode, as_recorded, uncovered
from streams.branching.raw_values import RawValues, texts_of
from streams.environments.environment import Observation
from streams.errors import (
    DivergedError,
    ObservationTooLargeError,
    SandboxDiedError,
    SandboxError,
    StepTimeoutError,
    UnjudgeableError,
)
from streams.redaction.redactor import Redactor
from streams.sandboxes.pool import SandboxPool, SandboxSession
from streams.sandboxes.protocol import Description, Followed, State

# A sandbox that dies takes all its sessions with it. More deaths than this in a row are not somebody else's.
_MOST_REOPENINGS = 5

FailureKind: TypeAlias = Literal["timeout", "died", "too_large"]


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of one action: an observation, or why there is none that can be used."""

    action: Message
    observation: Observation | None
    failure_kind: FailureKind | None = None


@dataclass(slots=True)
class Continuation:
    """A state of an episode from which one goes on. `actions` and `shown` are raw, from the episode's start on."""

    session: SandboxSession
    values: RawValues
    actions: list[Message]
    shown: list[Messages]

    async def step(self, action: Message) -> Observation:
        """Take an action. Raises `SandboxError`."""
        raw = self.values.executable(action)
        answer = await self.session.step(raw)
        self.actions.append(raw)
        self.shown.append(answer.messages)
        return _hidden(answer, self.values)


@dataclass(slots=True)
class RestoredEpisode:
    """One episode in a pool. Its states are walked through and compared with the recording once per sandbox process.

    Made by `restored`. One task at a time uses it; others wait. Actions and observations are in the recording's terms:
    with placeholders, where redaction has some. Only `raw` is as the sandbox has it.
    """

    request: BranchRequest
    followed: Followed = field(init=False)
    _pool: SandboxPool
    _description: Description
    _values: RawValues
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _open: AsyncExitStack = field(default_factory=AsyncExitStack)
    _session: SandboxSession | None = None
    raw: RawEpisode | None = None

    async def branch(self, step: int, actions: Sequence[Message]) -> list[Trial]:
        """Take each of `actions` from the state before action number `step`.

        A sandbox that does not survive an action is replaced; the others are not to suffer for it.

        Raises:
            DivergedError: the state cannot be brought back as it was.
            SandboxError: sandboxes die before anything is tried.
        """
        async with self._turn:
            trials: list[Trial] = []
            deaths, alone = 0, False
            while len(trials) < len(actions):
                left = actions[len(trials) :][: 1 if alone else None]
                executed = list(map(self._values.executable, left))
                try:
                    observations = await (await self._running()).branch(step, executed)
                except DivergedError:
                    raise
                except StepTimeoutError as error:
                    trials += self._trials(left, cast(Sequence[Observation], error.before))
                    trials.append(Trial(actions[len(trials)], None, "timeout"))
                except ObservationTooLargeError as error:
                    trials += self._trials(left, cast(Sequence[Observation], error.before))
                    trials.append(Trial(actions[len(trials)], None, "too_large"))
                except SandboxError as error:
                    # Also an environment that only lost its server is begun again.
                    self._session = None
                    deaths += 1
                    if deaths > _MOST_REOPENINGS:
                        raise
                    # Which of them it died of shows when each is alone; and it may have died of something else.
                    if isinstance(error, SandboxDiedError) and alone:
                        trials.append(Trial(actions[len(trials)], None, "died"))
                        deaths = 0
                    alone = True
                else:
                    trials += self._trials(left, observations)
                    deaths = 0
            return trials

    def _trials(self, actions: Sequence[Message], answers: Sequence[Observation]) -> list[Trial]:
        return [Trial(action, _hidden(answer, self._values)) for action, answer in zip(actions, answers, strict=False)]

    async def canonical(self, actions: Sequence[Message]) -> tuple[str, ...]:
        """A key for each action, one for all that do the same."""
        async with self._turn:
            return await (await self._running()).canonical(list(map(self._values.executable, actions)))

    def recorded(self, actions: Sequence[Message]) -> list[Message]:
        """Actions of the policy or the environment in the recording's terms: with placeholders for raw values.

        Raises `SandboxError` where redaction cannot judge one.
        """
        try:
            self._values.learn(text for action in actions for text in action.texts())
            return list(map(self._values.hidden, actions))
        except UnjudgeableError as error:
            raise _unjudgeable(error) from error

    def reason(self, error: SandboxError) -> str:
        """The text of an error, which may quote the sandbox, in the recording's terms."""
        return self._values.hidden_text(str(error))

    async def opening(self) -> Messages:
        """The messages with which the sandbox begins the episode's task, whatever was recorded. It is reset for it."""
        async with self._turn:
            first = _hidden(await (await self._running()).reset(self.request.task), self._values)
            self._session = None  # it has left the trajectory
            return first.messages

    @asynccontextmanager
    async def at(self, step: int) -> AsyncIterator[Continuation]:
        """The state before action number `step`, to continue there."""
        async with self._turn:
            session = await self._running()
            await session.restore(step)
            assert self.raw is not None
            actions, shown = self.raw.actions[:step], self.raw.expected[: step + 1]
            yield Continuation(session, self._values, list(actions), list(shown))

    async def _running(self) -> SandboxSession:
        """The session, or a new one that has followed the episode too if its process is gone."""
        if self._session is not None and self._session.process.alive:
            return self._session
        await self._open.aclose()
        self._session = None
        session = await self._open.enter_async_context(self._pool.session())
        followed = await (self._read(session) if self.raw is None else self._follow(session, self.raw))
        self.followed = self._in_recorded_terms(followed)
        self._session = session
        return session

    async def _read(self, session: SandboxSession) -> Followed:
        """Follow the recording as it is, if it may be what the sandbox shows, or what stands behind it."""
        self.raw = as_recorded(self.request)
        if not self._values.in_recording(self.request):
            followed = await self._follow(session, self.raw)
            if not followed.divergence:
                return followed
        self.raw = await uncovered(self.request, session, self._values, self._description)
        return await self._follow(session, self.raw)

    async def _follow(self, session: SandboxSession, raw: RawEpisode) -> Followed:
        if not raw.expected:
            return Followed((), raw.reason)
        followed = await session.follow(self.request.task, raw.actions, raw.expected)
        return followed if followed.divergence else Followed(followed.states, raw.reason)

    def _in_recorded_terms(self, followed: Followed) -> Followed:
        try:
            self._values.shown(action for state in followed.states for action in state.valid_actions)
            hide = self._values.hidden_text
            states = tuple(
                State(fingerprint=state.fingerprint, valid_actions=tuple(map(hide, state.valid_actions)))
                for state in followed.states
            )
            return Followed(states, hide(followed.divergence))
        except UnjudgeableError as error:
            raise _unjudgeable(error) from error


@asynccontextmanager
async def restored(
    request: BranchRequest, pool: SandboxPool, redactor: Redactor | None = None
) -> AsyncIterator[RestoredEpisode]:
    """Open the episode and walk through it; `redactor` is that of its recording.

    Raises `SandboxError` when its environment does not even begin it.
    """
    episode = RestoredEpisode(request, pool, await pool.describe(), RawValues.of(request, redactor))
    try:
        await episode._running()
        yield episode
    finally:
        await episode._open.aclose()


def _hidden(answer: Observation, values: RawValues) -> Observation:
    """The answer in the recording's terms; what it shows is known from then on."""
    if values.redactor is None:
        return answer
    try:
        values.shown(texts_of(answer.messages, answer.tools))
        return replace(answer, messages=tuple(map(values.hidden, answer.messages)))
    except UnjudgeableError as error:
        raise _unjudgeable(error) from error


def _unjudgeable(error: UnjudgeableError) -> SandboxError:
    return SandboxError(f"redaction cannot judge what the sandbox shows: {error}")
