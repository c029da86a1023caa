"""The counters of the assemble role, as its `/status` shows them. All figures are since the start of the process."""

from pydantic import Field

from streams.messages import Record


class AssemblyStatus(Record):
    """Spans, log records, captured calls and feedback that were read, and the events that were made of them."""

    repeated: int = 0
    unreadable: int = 0
    steps: int = 0
    outcomes: int = 0
    without_content: int = 0
    unusable_evaluations: int = 0
    unusable_feedback: int = 0
    superseded: int = 0
    too_large: int = 0
    absences: dict[str, int] = Field(default={}, description="Model calls without content, by the reason.")
    unrecognised: dict[str, int] = Field(
        default={}, description="Spans like model calls in a dialect that is not understood, by scope and operation."
    )
