"""The ingestion pipeline: the stages of a record on its way from the log to the store. The record role calls it.

decode → signature → limits → redaction. What fails one of them is refused, with a reason and without its content, and
goes whole to the dead-letter topic. An event that passes them is flagged where it has a sign of prompt injection: it is
stored, and its episode is never learned from.
"""

from dataclasses import replace

from ratchet_client.events import Event, OutcomeEvent, RetractionEvent, StepEvent
from streams.errors import UnjudgeableError
from streams.intake.admission import Admission, flag
from streams.intake.decoding import decode_event, decode_result
from streams.kafka.records import Received
from streams.kafka.refusals import RefusedEvent
from streams.redaction.redactor import Redactor
from streams.store.decoded import RESULTS, Decoded

WITHHELD = "(withheld: redaction could not judge it)"


class Intake:
    """Reads records of the events and the transitions topic. Stateless but for the redactor's memory of texts."""

    def __init__(self, admission: Admission, redactor: Redactor) -> None:
        self._admission = admission
        self._redactor = redactor

    def event(self, received: Received) -> Decoded:
        """A record of the events topic."""
        decoded = decode_event(received)
        event = decoded.content
        if not isinstance(event, StepEvent | OutcomeEvent | RetractionEvent):
            return decoded
        principal = None if isinstance(event, OutcomeEvent) else event.principal
        reason = self._admission.unsigned(received, event) or self._admission.refusal(received, event)
        if reason is not None:
            return Decoded(received, RefusedEvent(reason, principal))
        try:
            redacted = self._redactor.redact(event)
        except UnjudgeableError as error:
            if not isinstance(event, RetractionEvent):
                return Decoded(received, RefusedEvent(str(error), principal))
            # It must be obeyed, whatever its reason may hide.
            return Decoded(received, event.model_copy(update={"reason": WITHHELD}))
        told = _without_stale(redacted.event) if redacted.counts else redacted.event
        return Decoded(received, told, _producers_flag(redacted.event) or flag(event), redacted.counts)

    def result(self, received: Received) -> Decoded:
        """A record of the transitions topic. A policy may say what it has learned, and a sandbox what it holds."""
        decoded = decode_result(received)
        result = decoded.content
        if not isinstance(result, RESULTS):
            return decoded
        try:
            cleaned, counts = self._redactor.redact_result(result)
        except UnjudgeableError as error:
            return Decoded(received, RefusedEvent(str(error)))
        return replace(decoded, content=cleaned, redactions=counts) if counts else decoded


def _producers_flag(event: Event) -> str | None:
    return event.flag if isinstance(event, StepEvent) else None


def _without_stale(event: Event) -> Event:
    """The event without log-probabilities: they were of the action and the state as these were before redaction."""
    if isinstance(event, StepEvent) and event.log_probabilities:
        return event.model_copy(update={"log_probabilities": ()})
    return event
