"""A session that follows a recorded trajectory and can come back to any of its states. The sandbox worker holds them.

The trajectory is walked once; after that each state is brought back in the cheapest way that the environment has.
"""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from ratchet_client.events import Task
from ratchet_client.messages import Message, Messages, same_conversation, text_of
from streams.environments.environment import Environment, ListsActions, Observation, Restore, Snapshots
from streams.errors import DivergedError, ObservationTooLargeError, SandboxError, StepTimeoutError
from streams.sandboxes.fork import Fork
from streams.sandboxes.isolation.settings import OBSERVATION_BYTES
from streams.sandboxes.protocol import Followed, State


@dataclass(frozen=True, slots=True)
class ReferenceTrajectory:
    """The recorded trajectory: `expected` has the messages of the reset, and those of each action."""

    task: Task
    actions: tuple[Message, ...]
    expected: tuple[Messages, ...]


class ReplaySession:
    """One session. Without a reference trajectory it only plays: `reset` and `step`.

    A reset or step that takes longer than `step_timeout_s` seconds raises `StepTimeoutError`, where it can be
    interrupted at all; the environment is then of no use any more. One that is answered with more than `most_bytes`
    raises `ObservationTooLargeError`. Of the main thread only.
    """

    def __init__(self, environment: Environment, step_timeout_s: float, most_bytes: int = OBSERVATION_BYTES) -> None:
        self._environment = environment
        self._step_timeout_s = step_timeout_s
        self._most_bytes = most_bytes
        signal.signal(signal.SIGALRM, _too_late)
        self._way: Restore | None = None
        self._reference: ReferenceTrajectory | None = None
        self._states: list[State] = []
        self._snapshots: list[object] = []
        self._fork: Fork | None = None
        # The number of the reference trajectory's state that the environment itself is in; None when it has left the
        # reference trajectory.
        self._at: int | None = None

    @property
    def playing(self) -> Environment | Fork:
        """The environment that is stepped now: the session's own, or a copy of it that was forked."""
        return self._fork or self._environment

    def reset(self, task: Task) -> Observation:
        self._forget()
        return self._begin(task)

    def follow(self, reference: ReferenceTrajectory, way: Restore | None = None) -> Followed:
        """Walk the trajectory as far as it is what was recorded, and keep what is needed to come back to its states.

        They come back by `way` or, by default, the cheapest. Raises `SandboxError` when the environment has none such.
        """
        ways = self._environment.capabilities.restores
        if not ways or way not in (None, *ways):
            raise SandboxError(
                f"the environment {reference.task.environment!r} brings no state back by {way or 'any way'}"
            )
        self._forget()
        self._way = way or ways[0]
        self._reference = reference
        try:
            self._check(reference, 0, self._begin(reference.task))
            self._note()
            for number, action in enumerate(reference.actions, start=1):
                self._check(reference, number, self._take(action))
                self._note()
        except DivergedError as error:
            return Followed(tuple(self._states), str(error))
        self._at = len(reference.actions)
        return Followed(tuple(self._states))

    def restore(self, step: int) -> None:
        """Bring back the reference trajectory's state number `step`.

        Raises `DivergedError` when it is not that state, and `SandboxError` when the reference trajectory has no such
        state.
        """
        if self._reference is None or step >= len(self._states):
            raise SandboxError(f"state {step} not found. Follow a trajectory that has it first.")
        self._end_fork()
        if self._at != step:
            self._bring_back(self._reference, step)
        if self._way is Restore.FORK:
            self._fork = Fork(self._environment)

    def step(self, action: Message) -> Observation:
        at = self._at
        if self._fork is None:
            self._at = None  # also where the step fails half-way
        answer = self._take(action)
        if self._fork is None and at is not None and self._unchanged(at):
            self._at = at
        return answer

    def close(self) -> None:
        self._forget()
        self._environment.close()

    def _begin(self, task: Task) -> Observation:
        if task.state is not None and not self._environment.capabilities.initial_states:
            raise SandboxError(
                f"the episode began in the state {task.state}, and the environment {task.environment!r} restores no "
                "initial states. Leave the state out where it is the task's own."
            )
        signal.setitimer(signal.ITIMER_REAL, self._step_timeout_s)
        try:
            return _sound(self._environment.reset(task), self._most_bytes)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _take(self, action: Message) -> Observation:
        signal.setitimer(signal.ITIMER_REAL, self._step_timeout_s)
        try:
            return _sound(self.playing.step(action), self._most_bytes)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _bring_back(self, reference: ReferenceTrajectory, step: int) -> None:
        at, self._at = self._at, None
        if self._way is Restore.SNAPSHOT:
            assert isinstance(self._environment, Snapshots)
            self._environment.restore(self._snapshots[step])
        else:
            self._walk(reference, at, step)
        if self._environment.fingerprint() != self._states[step].fingerprint:
            raise DivergedError(f"the state restored after action {step} is not the one that was walked through")
        self._at = step

    def _walk(self, reference: ReferenceTrajectory, at: int | None, step: int) -> None:
        """To state `step`: from state `at` if it lies before it, else from the start."""
        if at is None or at > step:
            self._check(reference, 0, self._begin(reference.task))
            at = 0
        for number in range(at + 1, step + 1):
            self._check(reference, number, self._take(reference.actions[number - 1]))

    def _note(self) -> None:
        listed: Sequence[str] = ()
        if isinstance(self._environment, ListsActions):
            listed = self._environment.valid_actions()
        self._states.append(State(fingerprint=self._environment.fingerprint(), valid_actions=tuple(listed)))
        if self._way is Restore.SNAPSHOT:
            assert isinstance(self._environment, Snapshots)
            self._snapshots.append(self._environment.snapshot())

    def _unchanged(self, at: int) -> bool:
        if self._way is not Restore.REPLAY or not self._environment.capabilities.complete_fingerprint:
            return False  # any other way back is as quick as finding out
        return self._environment.fingerprint() == self._states[at].fingerprint

    def _forget(self) -> None:
        self._end_fork()
        self._reference, self._at = None, None
        self._states, self._snapshots = [], []

    def _end_fork(self) -> None:
        if self._fork is not None:
            self._fork.close()
            self._fork = None

    @staticmethod
    def _check(reference: ReferenceTrajectory, number: int, restored: Observation) -> None:
        if not same_conversation(restored.messages, reference.expected[number]):
            where = f"after action {number}" if number else "at the start"
            shown = _shown(restored.messages, reference.expected[number])
            raise DivergedError(f"the sandbox shows something else than was recorded {where}: {shown[:200]!r}")


def _sound(answer: Observation, most_bytes: int) -> Observation:
    """`answer`, if it can be what follows an action in a conversation."""
    if answer.is_larger_than(most_bytes):
        raise ObservationTooLargeError(
            f"an observation has more than {most_bytes} bytes. Let the environment say less at once, or raise "
            "branching.limits.observation_kib."
        )
    if any(message.role == "assistant" for message in answer.messages):
        raise SandboxError(
            "the environment answered with an assistant's message, which is an action of its own. "
            "Let it answer with messages of tools and users only."
        )
    return answer


def _shown(messages: Messages, recorded: Messages) -> str:
    """The texts of `messages`; all of them where the texts are those that were recorded."""
    text = text_of(messages)
    return text if text != text_of(recorded) else str([message.model_dump(exclude_none=True) for message in messages])


def _too_late(number: int, frame: FrameType | None) -> NoReturn:
    raise StepTimeoutError("a step took longer than it may")
