"""Practice episodes as the learner publishes them."""

from ratchet_client.events import Actor, Advice, OutcomeEvent, StepEvent
from streams.trust.practice import PRINCIPAL, VERIFIER, agent_of
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
    group: str = "",
) -> list[StepEvent | OutcomeEvent]:
    """An episode that `adapter` of a group played for practice; each action is of three tokens, the end included."""
    events: list[StepEvent | OutcomeEvent] = []
    for event in episode(name, task_id, "policy", success=success, action=action, steps=steps):
        own: dict[str, object] = {"origin": "practice"}
        if isinstance(event, StepEvent):
            own |= {"agent": agent_of(group), "principal": PRINCIPAL, "actor": Actor(kind="policy", adapter=adapter)}
            own["advice"] = advice
            own["log_probabilities"] = (-0.25 * (event.step + 1), -1.5, -0.125)
        else:
            own["verifier"] = VERIFIER
        events.append(event.model_copy(update=own))
    return events
