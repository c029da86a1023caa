"""Plays a task again with advice: a reflection on a failure, or the lesson of a success and a failure.

What succeeds is a trajectory of the prompt without the advice, which the objectives `erl`, `mel` and
`self_distillation` learn from. Nothing here chooses tasks: whoever calls gives tasks of the train split, and a snapshot
refuses all others. Sources: arXiv 2602.13949 (reflection and second attempt), arXiv 2602.10224 (lessons).
"""

from dataclasses import dataclass, replace

import structlog

from evaluation.episode import Player, Turn
from learners.objectives.mel import LESSON, parting, shared_steps, transcript
from learners.trajectories import INSTRUCTED, REFLECTED, Rationale, Trajectory
from streams.environments.harness import ChatHarness
from streams.errors import ContextLengthError
from streams.events import RecordedStep, Task, with_changes
from streams.ids import uuid7
from streams.messages import Message, escaped, user
from streams.policy.client import Sampling
from streams.sandboxes.pool import SandboxSession

log = structlog.get_logger()

_REFLECT = (
    "You review an attempt at a task that failed. Say in at most 60 words what went wrong and what to do instead next "
    "time. Say nothing else."
)
_COMPARE = (
    "You compare two attempts at one task, of which one succeeded. Say in at most 60 words what the difference was and "
    "what rule follows for next time. Say nothing else."
)
_THINKING = Sampling(max_tokens=128, stop=())
_ADVICE = "Heed this advice from an earlier attempt:"


@dataclass(frozen=True, slots=True)
class SecondAttempt:
    """A first attempt and, where it failed, what was thought about it and the attempt that followed.

    `second` is a trajectory of the prompt without the reflection. It is None where the first attempt succeeded, or
    nothing was said about it. It may have failed, too: nothing is learned from it then.
    """

    first: Trajectory
    reflection: str = ""
    second: Trajectory | None = None


@dataclass(frozen=True, slots=True)
class Adviser:
    """Has `player`'s model play, think, and play again; what it thinks is sampled with `thinking`."""

    player: Player
    thinking: Sampling = _THINKING

    async def attempt_twice(self, session: SandboxSession, task: Task) -> SecondAttempt:
        """Attempt `task`; after a failure reflect on it, and attempt it again with the reflection in the prompt.

        Raises `PolicyError` and `SandboxError`; `ContextLengthError` where there is no room for a first action.
        """
        first = await self.attempt(session, task)
        if first.success:
            return SecondAttempt(first)
        reflection = await self._think(_REFLECT, f"{_told(first)}\n\nThe attempt failed. Its score: {first.score:.2f}")
        if not reflection:
            return SecondAttempt(first)
        return SecondAttempt(first, reflection, await self.attempt(session, task, reflection, REFLECTED))

    async def learn_lesson(
        self, session: SandboxSession, task: Task, success: Trajectory, failure: Trajectory
    ) -> Trajectory | None:
        """What `task` played with the lesson of the two attempts led to, with the lesson as its rationale.

        None where the attempts do not part from one state, nothing is said about them, or the lesson does not help:
        it is kept only if the task then succeeds. Raises as `attempt_twice`.
        """
        step = parting(success, failure)
        if step is None:
            return None
        told = f"Succeeded:\n{_told(success)}\n\nFailed:\n{_told(failure)}\n\nThey part at action {step + 1}."
        lesson = await self._think(_COMPARE, told)
        if not lesson:
            return None
        played = await self.attempt(session, task, lesson, INSTRUCTED)
        if not (played.success and played.steps):
            log.info("a lesson did not help", task=task.task_id)
            return None
        # The replay may have gone another way before the two part: the lesson is about a state that all three have.
        about = min(step, shared_steps(success, played), len(played.steps) - 1)
        return replace(played, rationales=(Rationale(about, lesson, LESSON),))

    async def attempt(
        self, session: SandboxSession, task: Task, advice: str = "", actor_kind: str = "policy"
    ) -> Trajectory:
        """Play `task` with `advice`; the trajectory's prompt is without it. Raises as `attempt_twice`."""
        turns: list[Turn] = []
        harness = self.player.harness
        player = replace(self.player, harness=advised(harness, advice)) if advice else self.player
        rollout = await player.play(session, task, turns.append)
        opening = turns[0].messages if turns else rollout.messages
        shown = opening[1:] if player.harness.system_prompt else opening
        changes = with_changes(turn.tools for turn in turns)
        return Trajectory(
            episode_id=uuid7(),
            task_id=task.task_id,
            opening=harness.opening(shown),
            steps=tuple(
                RecordedStep(action=turn.action, observation=turn.observation, tools=tools)
                for turn, tools in zip(turns, changes, strict=True)
            ),
            actor_kind=actor_kind,
            adapter=player.model,
            origin="practice",
            success=rollout.success,
            score=rollout.score,
        )

    async def _think(self, instruction: str, told: str) -> str:
        """The model's answer to an instruction; an empty one where it says nothing, or there is no room for it."""
        messages = (Message(role="system", content=instruction), user(told))
        try:
            (reply,) = await self.player.policy.chat(self.player.model, messages, self.thinking)
        except ContextLengthError as error:
            log.warning("an attempt is too long to be reviewed", model=self.player.model, reason=str(error))
            return ""
        return escaped(reply.message).text.strip()


def advised(harness: ChatHarness, advice: str) -> ChatHarness:
    """The harness with advice in its system message."""
    parts = (harness.system_prompt, f"{_ADVICE} {advice}")
    return replace(harness, system_prompt="\n\n".join(part for part in parts if part))


def _told(trajectory: Trajectory) -> str:
    steps = (message for step in trajectory.steps for message in (step.sent_back, *step.observation))
    return transcript((*trajectory.opening, *steps))
