"""The Faust app of the assemble role: from the log into the assembly state, from there to the events topic."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import faust
import structlog
from pydantic import ValidationError

from streams.assembly.assembly import assemble
from streams.assembly.settings import AssemblySettings
from streams.assembly.state import AssemblyState, Unit
from streams.assembly.status import AssemblyStatus
from streams.events import OutcomeEvent, StepEvent
from streams.kafka.records import Outgoing, Received
from streams.kafka.refusals import Unreadable, dead_letter_record
from streams.kafka.settings import KafkaSettings
from streams.kafka.signatures import SIGNATURE_HEADER, sign
from streams.kafka.worker import build_app, consume, publish
from streams.otlp.records import ANY_RECORD, AnyRecord
from streams.runtime.crash_points import CrashPoint, reach
from streams.runtime.tally import Tally
from streams.settings import Secret

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
                    await asyncio.to_thread(self.state.prune, self.clock())
                    pruned = time.monotonic()
                await asyncio.sleep(_LOOK_EVERY_S)

        consume(app, self.kafka.spans_topic, handle, within_s=_BATCH_WAIT_S)
        app.task(keep_assembling)
        return app

    def keep(self, batch: list[Received]) -> list[Outgoing]:
        """Make a batch durable; returns a dead-letter record for each record that is not from the OTLP intake."""
        records: list[AnyRecord] = []
        dead: list[Outgoing] = []
        for received in batch:
            if received.unreadable is not None:
                reason = Unreadable(received.unreadable)
                dead.append(dead_letter_record(received, reason, self.kafka.dead_letters_topic))
                continue
            try:
                records.append(ANY_RECORD.validate_json(received.value or b""))
            except ValidationError as error:
                reason = Unreadable(f"no span or log record: {error.error_count()} fields are wrong")
                dead.append(dead_letter_record(received, reason, self.kafka.dead_letters_topic))
        repeated = self.state.add(records, self.clock())
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
        )
        key = self._key(records)
        messages = [self._message(event, key) for event in assembly.events]
        self.state.close_unit(unit, records, assembly.episodes, messages)
        steps = sum(isinstance(event, StepEvent) for event in assembly.events)
        result = AssemblyStatus(
            steps=steps,
            outcomes=len(assembly.events) - steps,
            without_content=assembly.without_content,
            unusable_evaluations=assembly.unusable_evaluations,
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

    def _key(self, records: Sequence[AnyRecord]) -> bytes | None:
        """The signing key: that of the principal whose token came with the records, and of no other process."""
        # One unit has one principal: traces are kept apart by it.
        principal = records[0].principal if records else None
        secret = self.keys.get(principal) if principal is not None else None
        return secret.get_secret_value().encode() if secret is not None else None

    def _message(self, event: StepEvent | OutcomeEvent, key: bytes | None) -> Outgoing:
        value = event.to_json()
        headers = ((SIGNATURE_HEADER, sign(key, value).encode()),) if key is not None else ()
        return Outgoing(self.kafka.events_topic, event.episode_id.encode(), value, headers)
