"""The door: what a record passes on its way from the log to the store. The record role calls it.

decode → signature → limits → injection signs → redaction. What fails one of them is refused, with a reason and without
its content, and goes whole to the dead-letter topic.
"""

from dataclasses import replace

from streams.admission import Admission, flag
from streams.decoding import Decoded, Quarantined, decode_branch_result, decode_event
from streams.events import BranchResult, OutcomeEvent, RetractionEvent, StepEvent
from streams.log import Received
from streams.redaction.redactor import Redactor
from streams.redaction.unjudgeable import UnjudgeableError

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
            return Decoded(received, Quarantined(reason, principal))
        try:
            redacted = self._redactor.redact(event)
        except UnjudgeableError as error:
            if not isinstance(event, RetractionEvent):
                return Decoded(received, Quarantined(str(error), principal))
            # It must be obeyed, whatever its reason may hide.
            return Decoded(received, event.model_copy(update={"reason": WITHHELD}))
        return Decoded(received, redacted.event, flag(event), redacted.counts)

    def branch_result(self, received: Received) -> Decoded:
        """A record of the transitions topic. A policy may say what it has learned, and a sandbox what it holds."""
        decoded = decode_branch_result(received)
        result = decoded.content
        if not isinstance(result, BranchResult):
            return decoded
        counts: dict[str, int] = {}

        def clean(text: str) -> str:
            cleaned, found = self._redactor.redact_text(text, result.episode_id)
            for kind, count in found.items():
                counts[kind] = counts.get(kind, 0) + count
            return cleaned

        try:
            alternatives = tuple(
                alternative.model_copy(
                    update={"action": clean(alternative.action), "observation": clean(alternative.observation)}
                )
                for alternative in result.alternatives
            )
        except UnjudgeableError as error:
            return Decoded(received, Quarantined(str(error)))
        if not counts:
            return decoded
        return replace(decoded, content=result.model_copy(update={"alternatives": alternatives}), redactions=counts)
