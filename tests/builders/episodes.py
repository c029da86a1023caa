"""Episodes as agents publish them."""

from typing import Literal

from ratchet_client.events import Actor, Message, OutcomeEvent, StepEvent, Task
from streams.kafka.settings import KafkaSettings
from streams.trust.holdout import HoldoutSettings, Split

KAFKA = KafkaSettings()
HOLDOUT = HoldoutSettings(selection=0.5, confirmation=0.1)
TASKS = {split: [f"twc/train/{n}" for n in range(60) if HOLDOUT.split(f"twc/train/{n}") is split] for split in Split}
TASK = TASKS[Split.TRAIN][0]


def task(task_id: str = TASK) -> Task:
    return Task(environment="textworld_express", task_id=task_id, seed=int(task_id.rpartition("/")[2]))


def episode(
    name: str,
    task_id: str = TASK,
    actor: Literal["policy", "expert", "human"] = "expert",
    *,
    success: bool = True,
    action: str = "go",
    steps: int = 2,
) -> list[StepEvent | OutcomeEvent]:
    """An append-only conversation of so many steps and its outcome; `name` is also whose data it is."""
    messages: tuple[Message, ...] = (Message(role="user", content=f"You are in a kitchen. {task_id}"),)
    events: list[StepEvent | OutcomeEvent] = []
    for number in range(steps):
        step = StepEvent(
            event_id=f"{name}-{number}",
            episode_id=name,
            step=number,
            agent="assistant",
            principal=name,
            task=task(task_id),
            messages=messages,
            action=Message(role="assistant", content=f"{action} {number}"),
            observation=f"Done {number}.",
            done=number == steps - 1,
            actor=Actor(kind=actor),
        )
        events.append(step)
        messages += (step.action, *step.observation)
    end = OutcomeEvent(event_id=f"{name}-end", episode_id=name, verifier="game", success=success, score=float(success))
    return [*events, end]
