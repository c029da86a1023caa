"""What a batch of records becomes in the store's tables. Pure bookkeeping; the store reads and writes the database."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import structlog

from streams.errors import StoreError
from streams.events import (
    MESSAGES,
    STEPS,
    BranchResult,
    OutcomeEvent,
    RecoveryResult,
    RetractionEvent,
    StepEvent,
)
from streams.ids import content_id
from streams.kafka.records import Outgoing, Received
from streams.kafka.refusals import Quarantined, Unreadable
from streams.store.decoded import Decoded

log = structlog.get_logger()

Cell: TypeAlias = object


@dataclass(slots=True)
class Batch:
    """The rows of one transaction. `sequence` is what the next row gets."""

    sequence: int
    rows: dict[str, list[tuple[Cell, ...]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, table: str, *cells: Cell) -> None:
        """Add a row; `cells` are the table's columns after `sequence`."""
        self.rows[table].append((self.sequence, *cells))
        self.sequence += 1

    def event(self, decoded: Decoded, event: StepEvent | OutcomeEvent | RetractionEvent) -> None:
        received = decoded.received
        episode = None if isinstance(event, RetractionEvent) else event.episode_id
        self.add(
            "events",
            *(event.event_id, event.kind, episode, received.topic, received.partition, received.offset),
            *(event.recorded_at, event.agent if isinstance(event, StepEvent) else None),
        )
        if isinstance(event, StepEvent):
            self._step(event)
        elif isinstance(event, RetractionEvent):
            self.add("retractions", event.event_id, event.principal, event.reason)
        else:
            self.add(
                "outcomes",
                *(event.event_id, event.episode_id, event.verifier, event.success, event.score),
                json.dumps(event.evidence),
            )
        if decoded.flag is not None:
            self.add("flags", episode, decoded.flag)

    def _step(self, event: StepEvent) -> None:
        self.add(
            "transitions",
            *(event.event_id, "production", event.episode_id, event.step),
            *(event.task.environment, event.task.task_id, event.task.seed, MESSAGES.dump_json(event.messages).decode()),
            *(event.action.content, event.observation, event.done, event.actor.kind, event.actor.adapter),
            *("recorded", None, None, event.principal),
        )

    def branch_result(self, result: BranchResult, principals: Mapping[str, str]) -> None:
        """`principals` says whose production episode was branched: a retraction must reach its branches too."""
        self.add(
            "branches",
            *(result.event_id, result.request_id, result.episode_id, result.step, result.requested),
            *(len(result.alternatives), result.fidelity, result.reason, result.policy),
        )
        for fatality in result.fatalities:
            self.add("fatalities", result.episode_id, result.step, fatality.action, fatality.fate)
        for alternative in result.alternatives:
            by_policy = alternative.source == "policy"
            self.add(
                "transitions",
                *(content_id("branch", result.episode_id, str(result.step), alternative.action), "branch"),
                *(result.episode_id, result.step, result.task.environment, result.task.task_id, result.task.seed, None),
                *(alternative.action, alternative.observation, alternative.done),
                *("policy" if by_policy else None, result.policy if by_policy else None),
                *(result.fidelity, alternative.score, alternative.source, principals.get(result.episode_id)),
            )

    def recovery_result(self, result: RecoveryResult, principals: Mapping[str, str]) -> None:
        """`principals` as for a branch result."""
        self.add(
            "recovery_attempts",
            *(result.event_id, result.request_id, result.episode_id, result.attempts, result.sandbox_steps),
            *(len(result.recoveries), result.fidelity, result.reason, result.policy),
        )
        for recovery in result.recoveries:
            steps = STEPS.dump_json(recovery.steps).decode()
            self.add(
                "recoveries",
                *(content_id("recovery", result.episode_id, str(recovery.left_at), steps), result.episode_id),
                *(recovery.left_at, steps, recovery.score, recovery.source, result.policy, result.fidelity),
                principals.get(result.episode_id),
            )

    def refused(self, received: Received, content: Unreadable | Quarantined) -> None:
        origin = (received.topic, received.partition, received.offset)
        if isinstance(content, Unreadable):
            self.add("dead_letters", *origin, content.error)
        else:
            self.add("quarantined", *origin, content.principal, content.reason)

    def duplicate(self, received: Received, event_id: str) -> None:
        self.add("duplicates", received.topic, received.partition, received.offset, event_id)

    def outgoing(self, message: Outgoing) -> None:
        self.add("outbox", message.topic, message.key, message.value)


@dataclass(slots=True)
class Watermark:
    """The next offset of each partition while a batch is taken in. `seen` are the partitions read since the start."""

    next: dict[tuple[str, int], int]
    seen: set[tuple[str, int]]

    def passes(self, received: Received, batch: Batch) -> bool:
        """Whether the record is new. Offsets missing before it become a row of `gaps`.

        Raises `StoreError` when they are missing from the middle of what is being read. Only the log itself can skip
        offsets at the start, since reading began at the watermark; later the consumer may have.
        """
        partition = (received.topic, received.partition)
        expected = self.next.get(partition, 0)
        if received.offset < expected:
            return False
        if received.offset > expected:
            where = f"{received.topic}/{received.partition}"
            if partition in self.seen:
                raise StoreError(
                    f"{where} went from offset {expected} to {received.offset}; read again from {expected}"
                )
            log.error("the log lacks records", partition=where, expected=expected, found=received.offset)
            batch.add("gaps", received.topic, received.partition, expected, received.offset)
        self.next[partition] = received.offset + 1
        self.seen.add(partition)
        return True
