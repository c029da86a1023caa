"""The states of an adapter and the allowed transitions. The registry refuses every other change."""

from enum import StrEnum

from streams.errors import LifecycleError


class State(StrEnum):
    """The state of an adapter. Only an approved one, or one that served well before, may serve.

    A held one waits for a person, who approves or rejects it.
    """

    TRAINED = "trained"
    EVALUATING = "evaluating"
    HELD = "held"
    APPROVED = "approved"
    REJECTED = "rejected"
    INCONCLUSIVE = "inconclusive"
    SERVING = "serving"
    RETIRED = "retired"
    ROLLED_BACK = "rolled_back"
    QUARANTINED = "quarantined"


TRANSITIONS: dict[State | None, frozenset[State]] = {
    None: frozenset({State.TRAINED}),
    State.TRAINED: frozenset({State.EVALUATING, State.QUARANTINED}),
    # An evaluation that could not be carried out is begun again.
    State.EVALUATING: frozenset(
        {State.EVALUATING, State.HELD, State.APPROVED, State.REJECTED, State.INCONCLUSIVE, State.QUARANTINED}
    ),
    # Inconclusive when nobody decides in time.
    State.HELD: frozenset({State.APPROVED, State.REJECTED, State.INCONCLUSIVE, State.QUARANTINED}),
    State.APPROVED: frozenset({State.SERVING, State.QUARANTINED}),
    State.REJECTED: frozenset({State.QUARANTINED}),
    # Not gated again: trying until luck decides would make the p-value a lie.
    State.INCONCLUSIVE: frozenset({State.QUARANTINED}),
    State.SERVING: frozenset({State.RETIRED, State.ROLLED_BACK, State.QUARANTINED}),
    # Where a rollback goes.
    State.RETIRED: frozenset({State.SERVING, State.QUARANTINED}),
    # What was taken back must win a gate again.
    State.ROLLED_BACK: frozenset({State.EVALUATING, State.QUARANTINED}),
    State.QUARANTINED: frozenset(),
}


def check(adapter: str, current: State | None, new: State) -> None:
    """Raise `LifecycleError` unless an adapter that is `current` (None: unknown) may become `new`."""
    if new not in TRANSITIONS[current]:
        known = current.value if current else "not known"
        allowed = ", ".join(sorted(TRANSITIONS[current])) or "nothing else"
        raise LifecycleError(f"adapter {adapter[:12]} is {known} and cannot become {new.value}; allowed: {allowed}")
