"""Replay of recorded episodes in their environment's sandbox: each is restored as branching restores it.

`ratchet environment replay` calls it, so that a team sees where its sandbox and its production part.
"""

import difflib
import json
from collections.abc import Sequence

from pydantic import JsonValue

from ratchet_client.messages import Message, Messages, same_conversation
from ratchet_client.settings import FrozenModel
from streams.branch_events import BranchRequest
from streams.branching.restored_episode import RestoredEpisode, restored
from streams.errors import SandboxError
from streams.redaction.redactor import Redactor
from streams.sandboxes.pool import SandboxPool
from streams.sandboxes.walks import spelled

_MOST_LINES = 40
_MOST_CHARACTERS = 300


class Replayed(FrozenModel):
    """One episode. `reproduced` of its `steps` actions were answered in the sandbox as they were in production.

    Where they were not all, `parts_at` is the number of the first that was not, or -1 if the episode already begins
    otherwise; None where the sandbox did not answer at all. `action` is that action in one line, and `diff` is from
    what was recorded after it to what the sandbox shows.
    `success` is the sandbox's verdict after the last action, None where it did not come to that.
    """

    episode_id: str
    task_id: str
    steps: int
    reproduced: int
    exact: bool
    parts_at: int | None = None
    action: str = ""
    reason: str = ""
    diff: tuple[str, ...] = ()
    success: bool | None = None


async def replay(request: BranchRequest, pool: SandboxPool, redactor: Redactor | None = None) -> Replayed:
    """Walk through the episode in the sandbox as far as it agrees; `redactor` is that of its recording."""
    steps = len(request.steps)

    def parted(last: int, reason: str, shown: Messages, success: bool | None = None) -> Replayed:
        """The answer to action number `last` is not what was recorded."""
        step = request.steps[last]
        told = {"action": spelled(step.action), "diff": difference(step.observation, shown)}
        return result(last, parts_at=last, reason=reason, success=success, **told)

    def result(reproduced: int, **found: object) -> Replayed:
        said = {"episode_id": request.episode_id, "task_id": request.task.task_id, "steps": steps}
        return Replayed.model_validate({**said, "reproduced": reproduced, "exact": False, **found})

    try:
        async with restored(request, pool, redactor) as episode:
            states = len(episode.followed.states)
            if not states:
                shown = await episode.opening()
                recorded = request.opening[max(0, len(request.opening) - len(shown)) :]
                return result(0, parts_at=-1, reason=episode.followed.divergence, diff=difference(recorded, shown))
            last = states - 1
            shown, success = await _taken(episode, last)
            recorded = request.steps[last].observation
            if states < steps:
                return parted(last, episode.followed.divergence, shown)
            # Agents do not record what came after their last words, if anything did.
            if recorded and not same_conversation(recorded, shown):
                return parted(last, "the sandbox answers the last action otherwise", shown, success)
            return result(steps, exact=True, success=success)
    except SandboxError as error:
        return result(0, reason=str(error))


async def _taken(episode: RestoredEpisode, step: int) -> tuple[Messages, bool]:
    """The answer to the recorded action number `step`, and whether it ended in success."""
    async with episode.at(step) as continuation:
        answer = await continuation.step(episode.request.steps[step].action.spoken())
    return answer.messages, answer.success


def difference(recorded: Messages, shown: Messages) -> tuple[str, ...]:
    """A unified diff of two conversations, as lines of at most 300 characters, and at most 40 of them."""
    lines = [*difflib.unified_diff(_lines(recorded), _lines(shown), "recorded", "sandbox", lineterm="", n=1)]
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], f"… and {len(lines) - _MOST_LINES} more lines"]
    return tuple(line[:_MOST_CHARACTERS] for line in lines)


def _lines(messages: Sequence[Message]) -> list[str]:
    lines: list[str] = []
    for message in messages:
        answered = f" to {message.tool_call_id}" if message.tool_call_id else ""
        lines += [f"[{message.role}{answered}]", *_readable(message.text).splitlines()]
        lines += [f"calls {call.model_dump_json(exclude_none=True)}" for call in message.calls]
    return lines


def _readable(text: str) -> str:
    """JSON with a line for each value, so that what differs is seen; other texts as they are."""
    try:
        value: JsonValue = json.loads(text)
    except ValueError:
        return text
    return json.dumps(value, indent=1, ensure_ascii=False) if isinstance(value, dict | list) else text
