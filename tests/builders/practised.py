"""Practice episodes as the learner publishes them."""

from streams.events import Actor, Advice, OutcomeEvent, StepEvent
from streams.trust.practice import AGENT, PRINCIPAL, VERIFIER
from tests.builders.episodes import TASK, episode


def practised(
    name: str,
    task_id: str = TASK,
    adapter: str = "ratchet-1",
    *,
    success: bool = True,
    action: str = "go",
    steps: int = 2,
    advice: Advice | None = None,
) -> list[StepEvent | OutcomeEvent]:
    """An episode that `adapter` played for practice; each action is of three tokens, the end of turn included."""
    events: list[StepEvent | OutcomeEvent] = []
    for event in episode(name, task_id, "policy", success=success, action=action, steps=steps):
        own: dict[str, object] = {"origin": "practice"}
        if isinstance(event, StepEvent):
            own |= {"agent": AGENT, "principal": PRINCIPAL, "actor": Actor(kind="policy", adapter=adapter)}
            own["advice"] = advice
            own["log_probabilities"] = (-0.25 * (event.step + 1), -1.5, -0.125)
        else:
            own["verifier"] = VERIFIER
        events.append(event.model_copy(update=own))
    return events
