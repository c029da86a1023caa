"""The rows that a batch of records becomes, each by the names of its columns. Pure; the store writes them."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from ratchet_client.events import Event, RetractionEvent, StepEvent
from ratchet_client.ids import content_id
from ratchet_client.messages import TOOLS, Message, as_json
from streams.branch_events import STEPS, BranchResult, RecoveryResult
from streams.kafka.records import Outgoing, Received
from streams.kafka.refusals import RefusedEvent, Unreadable
from streams.store.database import Row
from streams.store.decoded import Decoded
from streams.trust.practice import is_practice


@dataclass(slots=True)
class Batch:
    """The rows of one transaction. `sequence` is what the next row gets, `added` how many each table has got."""

    sequence: int
    added: Counter[str] = field(default_factory=Counter)
    _rows: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))

    def add(self, table: str, /, **cells: object) -> None:
        """Add a row; `cells` has all of the table's columns but `sequence`."""
        cells["sequence"] = self.sequence
        self._rows[table].append(cells)
        self.sequence += 1

    def take_rows(self) -> dict[str, list[Row]]:
        """The rows that were added since they were last taken, by table."""
        rows, self._rows = self._rows, defaultdict(list)
        self.added.update({table: len(added) for table, added in rows.items()})
        return rows

    def content(
        self, decoded: Decoded, content: Event | BranchResult | RecoveryResult, principals: Mapping[str, str]
    ) -> None:
        """Add what a record says.

        `principals` says whose production episode was branched, or recovered from: a retraction must reach what came of
        it too.
        """
        if isinstance(content, BranchResult):
            self._branch_result(content, principals.get(content.episode_id))
        elif isinstance(content, RecoveryResult):
            self._recovery_result(content, principals.get(content.episode_id))
        else:
            self._event(decoded, content)

    def _event(self, decoded: Decoded, event: Event) -> None:
        received = decoded.received
        episode = None if isinstance(event, RetractionEvent) else event.episode_id
        practice = is_practice(event)
        self.add(
            "events",
            event_id=event.event_id,
            kind=f"practice_{event.kind}" if practice else event.kind,
            episode_id=episode,
            topic=received.topic,
            partition=received.partition,
            offset=received.offset,
            recorded_at=event.recorded_at,
            agent=event.agent if isinstance(event, StepEvent) else None,
        )
        if isinstance(event, StepEvent):
            self._step(event)
        elif isinstance(event, RetractionEvent):
            self.add("retractions", event_id=event.event_id, principal=event.principal, reason=event.reason)
        elif not practice:
            self.add(
                "outcomes",
                event_id=event.event_id,
                episode_id=event.episode_id,
                verifier=event.verifier,
                success=event.success,
                score=event.score,
                evidence=json.dumps(event.evidence),
                recorded_at=event.recorded_at,
            )
        if decoded.flag is not None:
            self.add("flags", episode_id=episode, reason=decoded.flag)

    def _step(self, event: StepEvent) -> None:
        self.add(
            "transitions",
            transition_id=event.event_id,
            origin=event.origin,
            episode_id=event.episode_id,
            step=event.step,
            environment=event.task.environment,
            task_id=event.task.task_id,
            seed=event.task.seed,
            messages=as_json(event.messages),
            action=event.action.to_json().decode(),
            observation=as_json(event.observation),
            done=event.done,
            actor_kind=event.actor.kind,
            adapter=event.actor.adapter,
            fidelity="recorded",
            score=None,
            source=None,
            principal=event.principal,
            tools=TOOLS.dump_json(event.tools).decode() if event.tools else None,
            receipt=event.receipt,
            log_probabilities=(event.log_probabilities or None) if is_practice(event) else None,
            advice=event.advice.model_dump_json() if event.advice is not None and is_practice(event) else None,
            state=event.task.state,
        )

    def _branch_result(self, result: BranchResult, principal: str | None) -> None:
        self.add(
            "branches",
            result_id=result.event_id,
            request_id=result.request_id,
            episode_id=result.episode_id,
            step=result.step,
            requested=result.requested,
            executed=len(result.alternatives),
            fidelity=result.fidelity,
            reason=result.reason,
            policy=result.policy,
        )
        for failure in result.failures:
            self.add(
                "fatalities",
                episode_id=result.episode_id,
                step=result.step,
                action=failure.action.to_json().decode(),
                fate=failure.failure_kind,
            )
        for alternative in result.alternatives:
            by_policy = alternative.source == "policy"
            self.add(
                "transitions",
                transition_id=content_id("branch", result.episode_id, str(result.step), *_identity(alternative.action)),
                origin="branch",
                episode_id=result.episode_id,
                step=result.step,
                environment=result.task.environment,
                task_id=result.task.task_id,
                seed=result.task.seed,
                messages=None,
                action=alternative.action.to_json().decode(),
                observation=as_json(alternative.observation),
                done=alternative.done,
                actor_kind="policy" if by_policy else None,
                adapter=result.policy if by_policy else None,
                fidelity=result.fidelity,
                score=alternative.score,
                source=alternative.source,
                principal=principal,
                tools=None,
                receipt=None,
                log_probabilities=None,
                advice=None,
                state=result.task.state,
            )

    def _recovery_result(self, result: RecoveryResult, principal: str | None) -> None:
        self.add(
            "recovery_attempts",
            result_id=result.event_id,
            request_id=result.request_id,
            episode_id=result.episode_id,
            attempts=result.attempts,
            sandbox_steps=result.sandbox_steps,
            recovered=len(result.recoveries),
            fidelity=result.fidelity,
            reason=result.reason,
            policy=result.policy,
        )
        for recovery in result.recoveries:
            steps = STEPS.dump_json(recovery.steps, exclude_none=True).decode()
            self.add(
                "recoveries",
                recovery_id=content_id("recovery", result.episode_id, str(recovery.left_at), steps),
                episode_id=result.episode_id,
                left_at=recovery.left_at,
                steps=steps,
                score=recovery.score,
                source=recovery.source,
                adapter=result.policy,
                fidelity=result.fidelity,
                principal=principal,
            )

    def refused(self, received: Received, content: Unreadable | RefusedEvent) -> None:
        origin = _origin(received)
        if isinstance(content, Unreadable):
            self.add("dead_letters", **origin, error=content.error)
        else:
            self.add("quarantined", **origin, principal=content.principal, reason=content.reason)

    def duplicate(self, received: Received, event_id: str) -> None:
        self.add("duplicates", **_origin(received), event_id=event_id)

    def erased(self, received: Received, event_id: str, episode_id: str | None) -> None:
        """Note that a record is not stored, since its episode or its principal was erased."""
        self.add(
            "erased",
            erasure_id=None,
            principal=None,
            episode_id=episode_id,
            event_id=event_id,
            **_origin(received),
        )

    def outgoing(self, message: Outgoing) -> None:
        self.add("outbox", topic=message.topic, key=message.key, value=message.value)


def _origin(received: Received) -> dict[str, object]:
    return {"topic": received.topic, "partition": received.partition, "offset": received.offset}


def _identity(action: Message) -> tuple[str, ...]:
    """The parts of an action's id. That of a mere text is the id it had when all actions were texts."""
    written = action.to_json().decode()
    return (action.text,) if action == Message(role="assistant", content=action.text) else ("message", written)
