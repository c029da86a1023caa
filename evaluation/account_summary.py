"""The account of held-out tasks in figures. `evaluation/task_account.py` makes it; status and metrics show it."""

from pydantic import Field

from ratchet_client.settings import FrozenModel


class AccountSummary(FrozenModel):
    """The account as status, doctor and metrics show it.

    `fresh` are confirmation tasks that no gate has played, None where no trial has yet said how many there are.
    `most_uses` is of the selection task that most trials played. After `gates_until_rotation` more gates, or the next
    promotion, other tasks are drawn.
    """

    trials: int
    generation: int
    gates_until_rotation: int
    selection: int | None = None
    confirmation: int | None = None
    fresh: int | None = None
    uses: dict[str, int] = Field(default={})
    mean_uses: float = 0.0
    most_uses: int = 0
