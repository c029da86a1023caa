"""Plays a task again with advice: a reflection on a failure, or the lesson of a success and a failure.

What succeeds is a trajectory of the prompt without the advice, which the objectives `erl`, `mel` and
`self_distillation` learn from. `evaluation/practice.py` calls it for the groups that it plays. Sources: arXiv
2602.13949 (reflection and second attempt), arXiv 2602.10224 (lessons).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import structlog

from evaluation.episode import Player, Turn
from evaluation.rollouts import Rollout
from learners.comparisons import parting, shared_steps
from learners.trajectories import INSTRUCTED, LESSON, REFLECTED, Rationale, Trajectory
from learners.transcripts import transcript
from ratchet_client.events import Advice, Task
from ratchet_client.ids import uuid7
from ratchet_client.messages import Message, escaped, user
from streams.branch_events import RecordedStep, with_changes
from streams.environments.harness import ChatHarness
from streams.errors import ContextLengthError
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
class Advised:
    """An attempt that succeeded, and the advice that it was played with."""

    attempt: Trajectory
    advice: Advice


@dataclass(frozen=True, slots=True)
class Adviser:
    """Has `player`'s model play, think, and play again; what it thinks is sampled with `thinking`.

    `on_turn` is told each turn that is played.
    """

    player: Player
    thinking: Sampling = _THINKING
    on_turn: Callable[[Turn], None] = lambda turn: None

    async def follow_up(self, session: SandboxSession, task: Task, group: Sequence[Trajectory]) -> Advised | None:
        """A success at `task` with advice from a group of attempts at it; None where nothing comes of it.

        Where some succeeded and some failed it is the lesson of the first two that part from one state; where all
        failed, a reflection on the best of them. Raises as `attempt_twice`.
        """
        failures = [one for one in group if not one.success]
        successes = [one for one in group if one.success]
        if not failures:
            return None
        if not successes:
            best = max(failures, key=lambda one: one.score)
            again = await self.try_again(session, task, best)
            if again.second is None or not again.second.success:
                return None
            return Advised(again.second, Advice(kind="reflection", text=again.reflection))
        pairs = (pair for pair in product(successes, failures) if parting(*pair) is not None)
        pair = next(pairs, None)
        learned = None if pair is None else await self.learn_lesson(session, task, *pair)
        if learned is None:
            return None
        (lesson,) = learned.rationales
        return Advised(learned, Advice(kind="lesson", text=lesson.text, step=lesson.step))

    async def attempt_twice(self, session: SandboxSession, task: Task) -> SecondAttempt:
        """Attempt `task`; after a failure reflect on it, and attempt it again with the reflection in the prompt.

        Raises `PolicyError` and `SandboxError`; `ContextLengthError` where there is no room for a first action.
        """
        first = await self.attempt(session, task)
        return SecondAttempt(first) if first.success else await self.try_again(session, task, first)

    async def try_again(self, session: SandboxSession, task: Task, first: Trajectory) -> SecondAttempt:
        """Reflect on `first`, which failed, and attempt `task` again. Raises as `attempt_twice`."""
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

        def told(turn: Turn) -> None:
            self.on_turn(turn)
            turns.append(turn)

        harness = self.player.harness
        if not advice:
            rollout = await self.player.play(session, task, told)
            return replace(as_played(task, self.player.model, turns, rollout), actor_kind=actor_kind)
        player = replace(self.player, harness=advised(harness, advice))
        rollout = await player.play(session, task, told)
        played = as_played(task, player.model, turns, rollout)
        # What the advised prompt made of its tokens is not what the prompt without it would have.
        return replace(played, opening=harness.opening(played.opening[1:]), actor_kind=actor_kind, log_probabilities=())

    async def _think(self, instruction: str, told: str) -> str:
        """The model's answer to an instruction; an empty one where it says nothing, or there is no room for it."""
        messages = (Message(role="system", content=instruction), user(told))
        try:
            (reply,) = await self.player.policy.chat(self.player.model, messages, self.thinking)
        except ContextLengthError as error:
            log.warning("an attempt is too long to be reviewed", model=self.player.model, reason=str(error))
            return ""
        return escaped(reply.message).text.strip()


def as_played(task: Task, model: str, turns: Sequence[Turn], rollout: Rollout) -> Trajectory:
    """The trajectory of an episode that `model` played for practice, turn by turn."""
    changes = with_changes(turn.tools for turn in turns)
    return Trajectory(
        episode_id=uuid7(),
        task_id=task.task_id,
        opening=turns[0].messages if turns else rollout.messages,
        steps=tuple(
            RecordedStep(action=turn.action, observation=turn.observation, tools=tools)
            for turn, tools in zip(turns, changes, strict=True)
        ),
        actor_kind="policy",
        adapter=model,
        origin="practice",
        success=rollout.success,
        score=rollout.score,
        log_probabilities=tuple(turn.log_probabilities for turn in turns),
    )


def advised(harness: ChatHarness, advice: str) -> ChatHarness:
    """The harness with advice in its system message."""
    parts = (harness.system_prompt, f"{_ADVICE} {advice}")
    return replace(harness, system_prompt="\n\n".join(part for part in parts if part))


def _told(trajectory: Trajectory) -> str:
    steps = (message for step in trajectory.steps for message in (step.sent_back, *step.observation))
    return transcript((*trajectory.opening, *steps))
