"""The record of a played task: what reports, gates and `gate show` read.

`evaluation/arena.py` makes them.
"""

from dataclasses import dataclass

from streams.events import Task
from streams.messages import Messages, Tools


@dataclass(frozen=True, slots=True)
class Rollout:
    """One played episode. `score` runs from 0 to 1; `invalid_actions` counts those that were not understood.

    `messages` is the whole conversation, the actions among them; `tools` are those that were offered at its end.
    """

    task_id: str
    success: bool
    score: float
    steps: int
    invalid_actions: int
    actions: Messages
    messages: Messages = ()
    tools: Tools = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """A task that both sides played to the end."""

    task: Task
    champion: Rollout
    candidate: Rollout

    @property
    def is_win(self) -> bool:
        """Whether only the candidate solved it."""
        return self.candidate.success and not self.champion.success

    @property
    def is_loss(self) -> bool:
        """Whether only the champion solved it."""
        return self.champion.success and not self.candidate.success
