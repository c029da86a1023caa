"""Episodes as agents publish them, and a store that takes them in as if it had read them from the log."""

from dataclasses import dataclass
from typing import Literal

from streams.events import (
    Actor,
    Alternative,
    BranchResult,
    Event,
    Message,
    OutcomeEvent,
    RecordedStep,
    Recovery,
    RecoveryResult,
    StepEvent,
    Task,
)
from streams.ids import content_id
from streams.intake.decoding import decode_event, decode_result
from streams.kafka.records import Received
from streams.kafka.settings import KafkaSettings
from streams.store.decoded import Decoded
from streams.store.writer import Store
from streams.trust.holdout import HoldoutSettings, Split

KAFKA = KafkaSettings()
HOLDOUT = HoldoutSettings(selection=0.5, confirmation=0.1)
TASKS = {split: [f"twc/train/{n}" for n in range(60) if HOLDOUT.split(f"twc/train/{n}") is split] for split in Split}


@dataclass(frozen=True, slots=True)
class ServedStore:
    """A store and the address that it answers at."""

    store: Store
    url: str


def episode(
    name: str, task_id: str, actor: Literal["policy", "expert"] = "expert", success: bool = True, action: str = "go"
) -> list[Event]:
    """Two steps and the verdict; `name` is also whose data it is."""
    task = Task(environment="textworld_express", task_id=task_id)
    chat: tuple[Message, ...] = (Message(role="user", content=f"You are in a kitchen. {task_id}"),)
    events: list[Event] = []
    for number in range(2):
        said = Message(role="assistant", content=f"{action} {number}")
        step = StepEvent(
            episode_id=name,
            step=number,
            agent="agent",
            principal=name,
            task=task,
            messages=chat,
            action=said,
            observation=f"Done {number}.",
            done=number == 1,
            actor=Actor(kind=actor),
        )
        events.append(step)
        chat += (said, Message(role="user", content=step.observation))
    return [*events, OutcomeEvent(episode_id=name, verifier="game", success=success, score=float(success))]


class Log:
    """Appends to a store as if it had read a log of one partition for each topic."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next = {KAFKA.events_topic: 0, KAFKA.transitions_topic: 0}

    def publish(self, *events: Event) -> None:
        topic = KAFKA.events_topic
        self._store.append([decode_event(self._received(topic, event.to_json())) for event in events])

    def branched(self, episode_id: str, task_id: str, step: int = 1) -> None:
        result = BranchResult(
            request_id=content_id(episode_id),
            episode_id=episode_id,
            task=Task(environment="textworld_express", task_id=task_id),
            step=step,
            requested=1,
            fidelity="sandbox_exact",
            policy="base",
            alternatives=(Alternative(action="jump", observation="You jump.", done=False, score=0.0, source="policy"),),
        )
        decoded: Decoded = decode_result(self._received(KAFKA.transitions_topic, result.to_json()))
        self._store.append([decoded])

    def recovered(self, episode_id: str, task_id: str, left_at: int) -> None:
        result = RecoveryResult(
            request_id=content_id(episode_id),
            episode_id=episode_id,
            task=Task(environment="textworld_express", task_id=task_id),
            attempts=4,
            sandbox_steps=9,
            fidelity="sandbox_replayed",
            policy="base",
            recoveries=(
                Recovery(
                    left_at=left_at,
                    steps=tuple(RecordedStep(action=action, observation="Done.") for action in ("back", "forward")),
                    score=1.0,
                    source="policy",
                ),
            ),
        )
        decoded: Decoded = decode_result(self._received(KAFKA.transitions_topic, result.to_json()))
        self._store.append([decoded])

    def _received(self, topic: str, value: bytes) -> Received:
        self._next[topic] += 1
        return Received(topic, 0, self._next[topic] - 1, b"key", value)
