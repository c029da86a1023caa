"""From the bytes of a record to an event, or to the reason why there is none. Used by the record role alone."""

from dataclasses import dataclass

from pydantic import ValidationError

from streams.events import EVENT, BranchResult, Event
from streams.log import Received

MAX_ERROR_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a record is no event; fit for a header and for an operator, and free of the record's content."""

    error: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """A record and what it says."""

    received: Received
    content: Event | BranchResult | Unreadable


def decode_event(received: Received) -> Decoded:
    """Read a record of the events topic."""
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


def decode_branch_result(received: Received) -> Decoded:
    """Read a record of the transitions topic."""
    if received.value is None:
        return Decoded(received, Unreadable("the record has no value"))
    try:
        return Decoded(received, BranchResult.model_validate_json(received.value))
    except ValidationError as error:
        return Decoded(received, _explain(error))


def _explain(error: ValidationError) -> Unreadable:
    # The rejected input is left out: it may be anybody's data.
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    lines = (f"{'.'.join(str(part) for part in problem['loc']) or 'record'}: {problem['msg']}" for problem in problems)
    return Unreadable("; ".join(lines)[:MAX_ERROR_CHARACTERS])
