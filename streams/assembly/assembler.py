"""The Faust app of the assemble role: from the log into the assembly state, from there to the events topic."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import faust
import structlog
from pydantic import ValidationError

from ratchet_client.crash_points import CrashPoint, reach
from ratchet_client.events import OutcomeEvent, StepEvent
from ratchet_client.kafka.signatures import SIGNATURE_HEADER, sign
from ratchet_client.settings import Secret
from streams.assembly.assembly import Assembled, assemble
from streams.assembly.settings import AssemblySettings
from streams.assembly.state import AssemblyState, Unit
from streams.assembly.status import AssemblyStatus
from streams.assembly.traces import CallTraces
from streams.calls.records import ANY_CALL_RECORD, CapturedCall
from streams.kafka.newer_records import refuse_newer
from streams.kafka.records import Outgoing, Received
from streams.kafka.refusals import Unreadable, dead_letter_record
from streams.kafka.settings import KafkaSettings
from streams.kafka.worker import build_app, consume, publish
from streams.otlp.records import ANY_RECORD
from streams.runtime import tracing
from streams.runtime.tally import Tally
from streams.schema_versions import CALLS

log = structlog.get_logger()

ROLE = "assemble"
_BATCH = 500
_BATCH_WAIT_S = 0.5
_LOOK_EVERY_S = 1.0
_PRUNE_EVERY_S = 3600.0
_OUTBOX_BATCH = 500


@dataclass(frozen=True, slots=True)
class Assembler:
    """Keeps what is read, assembles what is complete, publishes what was assembled.

    `keys` are the principals' keys that the record role asks signatures of, if it does.
    """

    state: AssemblyState
    kafka: KafkaSettings
    settings: AssemblySettings
    keys: Mapping[str, Secret]
    tally: Tally[AssemblyStatus]
    clock: Callable[[], float] = time.time
    traces: CallTraces = field(default_factory=CallTraces)

    def build_app(self) -> faust.App:
        """A Faust app that does all of it. A record is acknowledged when the state has it durably."""
        app = build_app(ROLE, self.kafka, bundle=_BATCH)

        async def handle(batch: list[Received]) -> None:
            await publish(app, await asyncio.to_thread(self.keep, batch))

        async def keep_assembling() -> None:
            pruned = -_PRUNE_EVERY_S
            while True:
                # First what a crash left between a decision and its publication.
                await self._drain(app)
                for unit in await asyncio.to_thread(self.state.due, self.clock()):
                    await asyncio.to_thread(self.assemble, unit)
                await self._drain(app)
                if time.monotonic() - pruned > _PRUNE_EVERY_S:
                    unusable = await asyncio.to_thread(self.state.prune, self.clock())
                    self.tally.add(AssemblyStatus(unusable_feedback=unusable))
                    pruned = time.monotonic()
                await asyncio.sleep(_LOOK_EVERY_S)

        for topic in (self.kafka.spans_topic, self.kafka.calls_topic):
            consume(app, topic, handle, within_s=_BATCH_WAIT_S)
        app.task(keep_assembling)
        return app

    def keep(self, batch: list[Received]) -> list[Outgoing]:
        """Make a batch durable; returns a dead-letter record for each record that neither receiver wrote.

        Raises `NewerRecordError`; nothing of the batch is kept then.
        """
        began_ns = time.time_ns()
        records: list[Assembled] = []
        dead: list[Outgoing] = []
        traceparents: list[str | None] = []
        for received in batch:
            if received.unreadable is not None:
                reason = Unreadable(received.unreadable)
                dead.append(dead_letter_record(received, reason, self.kafka.dead_letters_topic))
                continue
            try:
                record = self._read(received)
            except ValidationError as error:
                refuse_newer(received, CALLS)
                reason = Unreadable(f"no record of the topic {received.topic}: {error.error_count()} fields are wrong")
                dead.append(dead_letter_record(received, reason, self.kafka.dead_letters_topic))
                continue
            records.append(record)
            if isinstance(record, CapturedCall):
                traceparents.append(tracing.traceparent_of(received.header(tracing.TRACEPARENT)))
                self.traces.add(record.receipt, traceparents[-1])
        repeated = self.state.add(records, self.clock())
        tracing.consumed("assemble", traceparents, began_ns)
        self.tally.add(AssemblyStatus(repeated=repeated, unreadable=len(dead)))
        return dead

    def assemble(self, unit: Unit) -> None:
        """Decide on the events of a unit that is complete."""
        records, known = self.state.read(unit)
        assembly = assemble(
            unit.name,
            records,
            known,
            evaluations=self.settings.evaluations,
            max_event_bytes=self.settings.max_event_bytes,
            earlier=self.state.earlier,
            chats=self.state.chats,
            environment=self.settings.environment,
        )
        messages = [self._message(event, assembly.signers.get(event.event_id)) for event in assembly.events]
        self.state.close_unit(unit, records, assembly.episodes, messages)
        steps = sum(isinstance(event, StepEvent) for event in assembly.events)
        result = AssemblyStatus(
            steps=steps,
            outcomes=len(assembly.events) - steps,
            without_content=assembly.without_content,
            unusable_evaluations=assembly.unusable_evaluations,
            unusable_feedback=assembly.unusable_feedback,
            superseded=assembly.superseded,
            too_large=assembly.too_large,
            absences=dict(assembly.absences),
            unrecognised=dict(assembly.unrecognised),
        )
        self.tally.add(result)
        if result != AssemblyStatus():
            log.info("trace assembled", unit=unit.name, **result.model_dump(exclude_defaults=True))

    async def _drain(self, app: faust.App) -> None:
        while pending := await asyncio.to_thread(self.state.pending, _OUTBOX_BATCH):
            reach(CrashPoint.OUTBOX_PUBLISH_BEFORE)
            await publish(app, [entry.message for entry in pending])
            reach(CrashPoint.OUTBOX_PUBLISH_AFTER)
            await asyncio.to_thread(self.state.published, pending[-1].number)

    def _read(self, received: Received) -> Assembled:
        value = received.value or b""
        if received.topic == self.kafka.calls_topic:
            return ANY_CALL_RECORD.validate_json(value)
        return ANY_RECORD.validate_json(value)

    def _message(self, event: StepEvent | OutcomeEvent, signer: str | None) -> Outgoing:
        """The event, signed with the key of the principal whose token came with its record, and of no other."""
        value = event.to_json()
        secret = self.keys.get(signer) if signer is not None else None
        key = secret.get_secret_value().encode() if secret is not None else None
        signature = ((SIGNATURE_HEADER, sign(key, value).encode()),) if key is not None else ()
        trace = self.traces.headers_of(event.receipt) if isinstance(event, StepEvent) else ()
        return Outgoing(self.kafka.events_topic, event.episode_id.encode(), value, signature + trace)
