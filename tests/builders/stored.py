"""Records as they come out of the log, and a store that takes them in as if it had read them there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ratchet_client.events import Event
from ratchet_client.ids import content_id
from streams.branch_events import Alternative, BranchRequest, BranchResult, RecordedStep, Recovery, RecoveryResult
from streams.intake.decoding import decode_event, decode_result
from streams.kafka.records import Received
from streams.store.decoded import Decoded
from streams.store.writer import Store
from tests.builders.episodes import KAFKA, TASK, task


@dataclass(frozen=True, slots=True)
class ServedStore:
    """A store and the address that it answers at."""

    store: Store
    url: str


def raw(value: bytes | None, offset: int = 0, partition: int = 0) -> Decoded:
    return decode_event(Received(KAFKA.events_topic, partition, offset, b"key", value))


def records(events: Sequence[Event], start: int = 0, partition: int = 0) -> list[Decoded]:
    """The events as they come out of one partition, from offset `start`."""
    return [raw(event.to_json(), offset, partition) for offset, event in enumerate(events, start)]


def result(record: BranchResult | RecoveryResult, offset: int = 0) -> Decoded:
    return decode_result(Received(KAFKA.transitions_topic, 0, offset, b"key", record.to_json()))


def branches(
    episode_id: str, task_id: str = TASK, step: int = 1, actions: Sequence[str] = ("jump",), requested: int = 1
) -> BranchResult:
    """What came of branching one state; the first action is the policy's, the others were listed."""
    request_id = content_id("branch_request", episode_id)
    return BranchResult(
        event_id=BranchResult.id_for(request_id, step),
        request_id=request_id,
        episode_id=episode_id,
        task=task(task_id),
        step=step,
        requested=requested,
        fidelity="sandbox_exact",
        policy="base",
        alternatives=tuple(
            Alternative(
                action=action,
                observation=f"You {action}.",
                done=False,
                score=0.5,
                source="valid_actions" if number else "policy",
            )
            for number, action in enumerate(actions)
        ),
    )


def unrestored(episode_id: str, step: int, reason: str) -> BranchResult:
    """The result of a state that was dropped for a reason."""
    dropped = {"fidelity": "dropped", "reason": reason, "alternatives": ()}
    return branches(episode_id, step=step).model_copy(update=dropped)


def recovery(
    episode_id: str, task_id: str = TASK, left_at: int = 0, actions: Sequence[str] = ("back", "forward")
) -> RecoveryResult:
    """A failed episode that was resumed from one state with success."""
    request_id = content_id("recovery", episode_id, str(left_at))
    return RecoveryResult(
        event_id=RecoveryResult.id_for(request_id),
        request_id=request_id,
        episode_id=episode_id,
        task=task(task_id),
        attempts=4,
        sandbox_steps=9,
        fidelity="sandbox_replayed",
        policy="base",
        recoveries=(
            Recovery(
                left_at=left_at,
                steps=tuple(RecordedStep(action=action, observation="Done.") for action in actions),
                score=1.0,
                source="policy",
            ),
        ),
    )


class Log:
    """Appends to a store as if it had read a log of one partition for each topic."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next = {KAFKA.events_topic: 0, KAFKA.transitions_topic: 0}

    def publish(self, *events: Event) -> None:
        start = self._offsets(KAFKA.events_topic, len(events))
        self._store.append(records(events, start))

    def branched(self, episode_id: str, task_id: str, step: int = 1) -> None:
        self._store.append([result(branches(episode_id, task_id, step), self._offsets(KAFKA.transitions_topic))])

    def dropped(self, episode_id: str, step: int, reason: str) -> None:
        """What the branch role says of a state that it cannot branch."""
        self._store.append([result(unrestored(episode_id, step, reason), self._offsets(KAFKA.transitions_topic))])

    def recovered(self, episode_id: str, task_id: str, left_at: int) -> None:
        self._store.append([result(recovery(episode_id, task_id, left_at), self._offsets(KAFKA.transitions_topic))])

    def _offsets(self, topic: str, count: int = 1) -> int:
        """The first of so many new offsets."""
        self._next[topic] += count
        return self._next[topic] - count


def column(store: Store, sql: str) -> list[Any]:
    return list(store.query(sql).column(0).to_pylist())


def requests(store: Store) -> list[BranchRequest]:
    """The branch requests that wait to be published."""
    messages = [pending.message for pending in store.pending(100)]
    return [BranchRequest.model_validate_json(m.value or b"") for m in messages if m.topic == KAFKA.branches_topic]
