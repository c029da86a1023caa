"""A recorded episode as a sandbox knows it: the recording is walked once, and compared step by step.

`restored_episode.py` calls it where a recording holds placeholders, or where the sandbox shows something else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from ratchet_client.messages import Message, Messages, text_of
from streams.branch_events import BranchRequest
from streams.branching.raw_values import RawValues, texts_of
from streams.environments.environment import Observation
from streams.errors import UnjudgeableError
from streams.sandboxes.pool import SandboxSession
from streams.sandboxes.protocol import Description

_SHOWN = 200

_OTHER_KEY = (
    "Only the placeholders differ: give this branch worker the redaction.key of the record role that stored the episode"
)


@dataclass(frozen=True, slots=True)
class RawEpisode:
    """`request` with raw values, as far as they are known.

    `actions` can be executed, `expected` is what the reset and each of them must show; `reason` is why they end before
    the last state, if they do.
    """

    request: BranchRequest
    actions: Messages
    expected: tuple[Messages, ...]
    reason: str = ""


def as_recorded(request: BranchRequest) -> RawEpisode:
    """The recording taken at its word. Of the opening, the environment shows what follows the agent's instructions."""
    steps = request.steps[:-1]
    begun = list(
        takewhile(lambda message: message.role not in ("system", "developer", "assistant"), request.opening[::-1])
    )
    return RawEpisode(
        request,
        tuple(step.action.spoken() for step in steps),
        (tuple(begun[::-1]), *(step.observation for step in steps)),
    )


async def uncovered(
    request: BranchRequest, session: SandboxSession, values: RawValues, description: Description
) -> RawEpisode:
    """Walk the recording in `session`, as far as the sandbox agrees with it. `values` learns what it shows.

    Raises `SandboxError` as the session does.
    """
    walk = _Walk(request, session, values, description)
    try:
        reason = await walk.run()
    except UnjudgeableError as error:
        reason = f"what the sandbox shows cannot be redacted {walk.where}: {error}"
    return walk.episode(reason)


class _Walk:
    """The walk through one recording. `_expected` has the answer to the reset and to each of `_actions`."""

    def __init__(
        self, request: BranchRequest, session: SandboxSession, values: RawValues, description: Description
    ) -> None:
        self._request = request
        self._session = session
        self._values = values
        self._description = description
        self._actions: list[Message] = []
        self._expected: list[Messages] = []

    @property
    def where(self) -> str:
        number = len(self._expected)
        return f"after action {number}" if number else "at the start"

    def episode(self, reason: str) -> RawEpisode:
        """The episode as far as it was found."""
        request, actions, expected = self._request, tuple(self._actions), tuple(self._expected)
        first = expected[0] if expected else ()
        shown = expected[1:]
        steps = tuple(
            step.model_copy(
                update={
                    "action": actions[number] if number < len(actions) else self._likeliest(step.action),
                    "observation": shown[number]
                    if number < len(shown)
                    else tuple(map(self._likeliest, step.observation)),
                }
            )
            for number, step in enumerate(request.steps)
        )
        before = request.opening[: len(request.opening) - len(first)]
        opening = (*map(self._likeliest, before), *first)
        return RawEpisode(request.model_copy(update={"opening": opening, "steps": steps}), actions, expected, reason)

    async def run(self) -> str:
        """The reason for which the walk ended early, or nothing."""
        first = await self._session.reset(self._request.task)
        self._values.shown([self._description.harness.system_prompt])
        opening = self._request.opening
        if reason := self._compare([first], opening[max(0, len(opening) - len(first.messages)) :]):
            return reason
        for step in self._request.steps[:-1]:
            action = step.action.spoken()
            if self._values.unknown(action) and self._description.lists_actions:
                self._values.shown(await self._session.valid_actions())
            if unknown := self._values.unknown(action):
                return (
                    f"the raw value of {', '.join(unknown)} in action {len(self._expected)} is not known: "
                    "the sandbox has not shown it"
                )
            if reason := await self._take(action, step.observation):
                return reason
        return ""

    async def _take(self, action: Message, recorded: Messages) -> str:
        """Take the action in that of its spellings that is answered as was recorded."""
        answers: list[Observation] = []
        for spelling in self._values.spellings(action):
            if answers:
                again = await self._session.replay(self._request.task, [*self._actions, spelling])
                answers.append(again[-1])
            else:
                answers.append(await self._session.step(spelling))
            if self._values.agrees(answers[-1].messages, recorded):
                self._actions.append(spelling)
                break
        return self._compare(answers, recorded)

    def _compare(self, answers: Sequence[Observation], recorded: Messages) -> str:
        """Go on from the last of `answers` if it is what was recorded, or say what the sandbox shows instead."""
        if self._values.agrees(answers[-1].messages, recorded):
            self._values.shown(texts_of(answers[-1].messages, answers[-1].tools))
            self._expected.append(answers[-1].messages)
            return ""
        shown = self._values.redacted(answers[0].messages)
        text = text_of(shown)
        if text == text_of(recorded):
            text = str([message.model_dump(exclude_none=True) for message in shown])
        reason = f"the sandbox shows something else than was recorded {self.where}: {text[:_SHOWN]!r}"
        return f"{reason}. {_OTHER_KEY}" if self._values.agree_but_for_the_key(shown, recorded) else reason

    def _likeliest(self, message: Message) -> Message:
        return next(self._values.spellings(message))
