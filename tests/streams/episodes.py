"""Episodes as the log gives them, for the tests of the store."""

from collections.abc import Sequence
from typing import Any, Literal

from streams.events import (
    Actor,
    Alternative,
    BranchRequest,
    BranchResult,
    Event,
    Message,
    OutcomeEvent,
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
HOLDOUT = HoldoutSettings(selection=0.5, confirmation=0.0)


def task(split: Split = Split.TRAIN) -> Task:
    seed = next(seed for seed in range(100) if HOLDOUT.split(f"twc/train/{seed}") is split)
    return Task(environment="textworld_express", task_id=f"twc/train/{seed}", seed=seed)


def episode(
    name: str,
    actor: Literal["policy", "expert", "human"] = "expert",
    *,
    success: bool = True,
    split: Split = Split.TRAIN,
) -> list[Event]:
    """Two steps of one growing chat, and the verdict."""
    messages: tuple[Message, ...] = (Message(role="user", content="You are in a kitchen."),)
    events: list[Event] = []
    for number in range(2):
        step = StepEvent(
            event_id=f"{name}-{number}",
            episode_id=name,
            step=number,
            agent="assistant",
            principal=f"tenant/{name}",
            task=task(split),
            messages=messages,
            action=Message(role="assistant", content=f"go {number}"),
            observation=f"You went {number}.",
            done=number == 1,
            actor=Actor(kind=actor),
        )
        events.append(step)
        messages += (step.action, Message(role="user", content=step.observation))
    verdict = OutcomeEvent(event_id=f"{name}-end", episode_id=name, verifier="game", success=success, score=1.0)
    return [*events, verdict]


def records(events: Sequence[Event], start: int = 0, partition: int = 0) -> list[Decoded]:
    """The events as they come out of one partition, from offset `start`."""
    return [raw(event.to_json(), offset, partition) for offset, event in enumerate(events, start)]


def raw(value: bytes | None, offset: int = 0, partition: int = 0) -> Decoded:
    return decode_event(Received(KAFKA.events_topic, partition, offset, b"key", value))


def result(episode_id: str, offset: int = 0) -> Decoded:
    request_id = content_id("branch_request", episode_id)
    record = BranchResult(
        event_id=BranchResult.id_for(request_id, 1),
        request_id=request_id,
        episode_id=episode_id,
        task=task(),
        step=1,
        requested=3,
        fidelity="sandbox_exact",
        policy="base",
        alternatives=(
            Alternative(action="jump", observation="You jump.", done=False, score=0.5, source="policy"),
            Alternative(action="wait", observation="You wait.", done=False, score=0.5, source="valid_actions"),
        ),
    )
    return decode_result(Received(KAFKA.transitions_topic, 0, offset, b"key", record.to_json()))


def column(store: Store, sql: str) -> list[Any]:
    return list(store.query(sql).column(0).to_pylist())


def requests(store: Store) -> list[BranchRequest]:
    messages = [pending.message for pending in store.pending(100)]
    return [BranchRequest.model_validate_json(m.value or b"") for m in messages if m.topic == KAFKA.branches_topic]
