"""From the bytes of a record to an event, or to the reason why there is none. `streams.intake.pipeline` calls it."""

from collections.abc import Sequence

from pydantic import ValidationError

from ratchet_client.events import EVENT, Actor, OutcomeEvent, RetractionEvent, StepEvent, Task
from ratchet_client.messages import ContentPart, FunctionCall, Message, ToolCall
from streams.branch_events import RESULT, Alternative, BranchResult, Failure, RecordedStep, Recovery, RecoveryResult
from streams.kafka.newer_records import refuse_newer
from streams.kafka.records import Received
from streams.kafka.refusals import Unreadable
from streams.schema_versions import EVENTS
from streams.store.decoded import Decoded

MAX_ERROR_CHARACTERS = 500
_MODELS = (
    *(StepEvent, OutcomeEvent, RetractionEvent, BranchResult, RecoveryResult, Message, Task, Actor),
    *(ContentPart, ToolCall, FunctionCall),
    *(Alternative, Failure, Recovery, RecordedStep),
)
_NAMES = {field.alias or name for model in _MODELS for name, field in model.model_fields.items()} | {
    "step",
    "outcome",
    "retraction",
    "branch_result",
    "recovery_result",
}
# Pydantic's own would quote the record.
_MESSAGES = {"union_tag_invalid": "kind: no such kind of event"}


def decode_event(received: Received) -> Decoded:
    """Read a record of the events topic."""
    if received.unreadable is not None:
        return Decoded(received, Unreadable(received.unreadable))
    if received.value is None:
        return Decoded(received, Unreadable("the record has no value"))
    try:
        event = EVENT.validate_json(received.value)
    except ValidationError as error:
        return Decoded(received, _explain(error))
    if "event_id" not in event.model_fields_set:
        # Given here, it would differ each time the record is read, and the event would be stored again.
        return Decoded(received, Unreadable("event_id: Field required"))
    return Decoded(received, event)


def decode_result(received: Received) -> Decoded:
    """Read a record of the transitions topic. Raises `NewerRecordError`."""
    if received.unreadable is not None:
        return Decoded(received, Unreadable(received.unreadable))
    if received.value is None:
        return Decoded(received, Unreadable("the record has no value"))
    try:
        return Decoded(received, RESULT.validate_json(received.value))
    except ValidationError as error:
        refuse_newer(received, EVENTS)
        return Decoded(received, _explain(error))


def _explain(error: ValidationError) -> Unreadable:
    # The rejected input is left out: it may be anybody's data.
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    lines = (f"{_place(problem['loc'])}: {_MESSAGES.get(problem['type'], problem['msg'])}" for problem in problems)
    return Unreadable("; ".join(lines)[:MAX_ERROR_CHARACTERS])


def _place(parts: Sequence[int | str]) -> str:
    """Return where in the record an error is, without names that the schema does not have: the sender chose them."""
    # Of a content, an action or an observation, pydantic names the forms that it tried: a text, or what is in it.
    told = (part for part in parts if part not in ("str", "list") and not str(part).startswith("tuple["))
    known = (str(part) if isinstance(part, int) or part in _NAMES else "(unknown)" for part in told)
    return ".".join(known) or "record"
