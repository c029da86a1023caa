"""What a snapshot holds: episodes as append-only conversations, with the branches of their states."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ratchet_client.messages import Message, Messages, Tools
from streams.branch_events import RecordedStep, tools_at

RECOVERY = "recovery"
# A policy that succeeded with a reflection, or a lesson, in a prompt that the trajectory has without it.
REFLECTED = "reflected"
INSTRUCTED = "instructed"
# The base model, answering a prompt that is no principal's data.
BASE_SAMPLE = "base"
# The writer of the rationale that is a lesson.
LESSON = "lesson"

# Who played an episode: an agent in production, or the learner itself in a sandbox.
Origin: TypeAlias = Literal["production", "practice"]


@dataclass(frozen=True, slots=True)
class Branch:
    """An alternative at state `step` of a trajectory, and the observation it led to.

    `score` is the environment's after it, None where that is not known; `done` says that the episode ended with it.
    """

    step: int
    action: Message
    observation: Messages
    source: str
    fidelity: str
    score: float | None = None
    done: bool = False


@dataclass(frozen=True, slots=True)
class Rationale:
    """The reasons for the trusted action at state `step` of a trajectory, told before it is taken.

    `writer` names who wrote them.
    """

    step: int
    text: str
    writer: str


@dataclass(frozen=True, slots=True)
class Trajectory:
    """An episode as an append-only conversation. State i is `opening` plus the first i steps.

    `actor_kind` is who acted: an expert, a human, a policy, a policy that had been told something that is left out here
    (`REFLECTED`, `INSTRUCTED`), or one that went on from a mistake of its own (`RECOVERY`). Such a mistake, the actions
    before step `learn_from`, is seen and never imitated.
    `principals` are whose data it is: several, where episodes that went the same way are kept as one.

    `success` and `score` are the verified outcome: an episode that failed is there only if it was practised, and is
    never imitated. `log_probabilities` are those of each action's tokens when `adapter` sampled it, in nats, one tuple
    per step, an empty one where they are not known; there are none but for practice.

    `older` says that the adapter that is trained on from has learned from it, or from one that went the same way.
    """

    episode_id: str
    task_id: str
    opening: Messages
    steps: tuple[RecordedStep, ...]
    branches: tuple[Branch, ...] = ()
    actor_kind: str = "expert"
    adapter: str | None = None
    principals: tuple[str, ...] = ()
    learn_from: int = 0
    origin: Origin = "production"
    success: bool = True
    score: float = 1.0
    log_probabilities: tuple[tuple[float, ...], ...] = ()
    rationales: tuple[Rationale, ...] = ()
    older: bool = False

    def tools(self, step: int) -> Tools:
        """The tools offered at state `step`."""
        return tools_at(self.steps, step)
