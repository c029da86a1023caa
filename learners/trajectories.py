"""A training example: a trusted episode and the branches of its states."""

from dataclasses import dataclass

from streams.events import RecordedStep, tools_at
from streams.messages import Message, Messages, Tools

RECOVERY = "recovery"


@dataclass(frozen=True, slots=True)
class Branch:
    """An alternative at state `step` of a trajectory, and the observation it led to."""

    step: int
    action: Message
    observation: Messages
    source: str
    fidelity: str


@dataclass(frozen=True, slots=True)
class Trajectory:
    """An episode as an append-only conversation. State i is `opening` plus the first i steps.

    `actor_kind` is who acted: an expert, a human, a policy, or a policy that went on from a mistake of its own
    (`RECOVERY`). Such a mistake, the actions before step `learn_from`, is seen and never imitated.
    `principals` are whose data it is: several, where episodes that went the same way are kept as one.
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

    def tools(self, step: int) -> Tools:
        """The tools offered at state `step`."""
        return tools_at(self.steps, step)
